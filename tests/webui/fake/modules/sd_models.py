from types import SimpleNamespace

model_data = SimpleNamespace(sd_model=None, loaded_sd_models=[])
