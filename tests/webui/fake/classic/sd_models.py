"""What loads models in reForge and in Forge Classic: when somebody asks for the model and none was ever loaded."""

from types import SimpleNamespace

from safetensors.torch import load_file


class SdModelData:
    def __init__(self):
        self.sd_model = None
        self.loaded_sd_models = []
        self.was_loaded_at_least_once = False

    def get_sd_model(self):
        if not self.was_loaded_at_least_once and self.sd_model is None:
            load_model()
        return self.sd_model

    def set_sd_model(self, v, already_loaded=False):
        self.sd_model = v


def load_model(checkpoint_info=None, already_loaded_state_dict=None):
    state_dict = load_file(select_checkpoint().filename)
    model_data.sd_model = SimpleNamespace(forge_objects=state_dict, current_lora_hash="[]")
    model_data.loaded_sd_models.append(model_data.sd_model)
    model_data.was_loaded_at_least_once = True


def select_checkpoint():
    return next(iter(checkpoints_list.values()))


model_data = SdModelData()
model_path = "models/Stable-diffusion"
checkpoints_list = {}
forge_loader = SimpleNamespace()
model_management = SimpleNamespace(
    unload_all_models=lambda: asked.append("unload"), soft_empty_cache=lambda: asked.append("free")
)
asked = []  # fake only: what the memory manager was asked for


def choose(info, modules):  # fake only: what the page does when the user chooses a checkpoint
    import modules.sd_vae as sd_vae

    checkpoints_list[info.title] = info
    sd_vae.chosen[:] = modules


def needed():  # fake only: what the next generation does
    return model_data.get_sd_model()
