class StableDiffusionProcessing:
    cached_uc = [None, None]
    cached_c = [None, None]


class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    cached_hr_uc = [None, None]
    cached_hr_c = [None, None]
