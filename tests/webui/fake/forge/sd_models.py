"""What loads models in Forge and in Forge Neo: lazily, by comparing what is chosen with what was loaded last."""

from types import SimpleNamespace

from safetensors.torch import load_file


class FakeInitialModel:
    def __init__(self):
        self.cond_stage_model = None


class SdModelData:
    def __init__(self):
        self.sd_model = FakeInitialModel()
        self.forge_loading_parameters = {}
        self.forge_hash = ""

    def get_sd_model(self):
        return self.sd_model

    def set_sd_model(self, v):
        self.sd_model = v


def forge_loader(sd, additional_state_dicts=None):
    return SimpleNamespace(forge_objects=load_file(sd), current_lora_hash="[]")


def forge_model_reload():
    if model_data.forge_hash != str(model_data.forge_loading_parameters):
        model_data.sd_model = forge_loader(model_data.forge_loading_parameters["checkpoint_info"].filename)
        model_data.forge_hash = str(model_data.forge_loading_parameters)
    return model_data.sd_model, True


def select_checkpoint():
    return next(iter(checkpoints_list.values()))


model_data = SdModelData()
model_path = "models/Stable-diffusion"
checkpoints_list = {}
memory_management = SimpleNamespace(
    unload_all_models=lambda: asked.append("unload"), soft_empty_cache=lambda: asked.append("free")
)
asked = []  # fake only: what the memory manager was asked for


def choose(info, modules):  # fake only: what the page does when the user chooses a checkpoint
    checkpoints_list[info.title] = info
    model_data.forge_loading_parameters = {
        "checkpoint_info": info,
        "additional_modules": [str(file) for file in modules],
    }


def needed():  # fake only: what the next generation does
    return forge_model_reload()[0]
