unet_options = []
current_unet = None


def get_unet_option(option=None):
    return None
