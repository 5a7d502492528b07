from types import SimpleNamespace

model_data = SimpleNamespace(sd_model=None, loaded_sd_models=[])
model_path = "models/Stable-diffusion"


checkpoints_list = {}


def list_models():
    checkpoints_list.clear()


def get_closet_checkpoint_match(search_string):
    return next((info for title, info in checkpoints_list.items() if search_string in title), None)


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    model_data.sd_model = info
