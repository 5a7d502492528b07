from types import SimpleNamespace

model_data = SimpleNamespace(sd_model=None, loaded_sd_models=[])
model_path = "models/Stable-diffusion"


def list_models():
    pass
