"""Forge and its kin: the tag, and the model, which is opened anew from its file: Forge's own cannot be trained on.

Forge loads weights under `inference_mode` and merges by its own patcher, whose form changes between its versions; a
table of tensors with kohya's keys is what all of them take (sd_forge_lora/networks.py, load_networks).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from modules import devices, extra_networks, sd_models

from ..errors import UserError
from ..hosts.checkpoint import check_readable, check_vae
from ..hosts.protocol import Host
from ..lidb.file import is_lidb, load
from ..lidb.lora import lora_tensors
from .builtin_lora import unlisted
from .host import can_unload, chosen_checkpoint, chosen_modules, unloaded
from .settings import hypernetwork_dirs

# Forge and its kin take models of the known sizes only, so there is no "Try it now".
_NONE_CHOSEN = (
    "There is no checkpoint: get an SD 1.x or SDXL .safetensors file. The small built-in model does not run here."
)


def register_forge_tag(networks: ModuleType, lora_network: Any, tag: str) -> None:
    """Teach Forge's loader our files, once, and our tag, after every "Reload UI"."""
    theirs = networks.load_lora_state_dict
    if not hasattr(theirs, "reads_lidb"):

        def load_lora_state_dict(filename: str) -> Any:
            path = Path(filename)
            if path.suffix == ".safetensors" and is_lidb(path):
                return lora_tensors(load(path, hypernetwork_dirs())[0])
            return theirs(filename)

        load_lora_state_dict.reads_lidb = True  # type: ignore[attr-defined]
        load_lora_state_dict.cache_clear = getattr(theirs, "cache_clear", None)  # type: ignore[attr-defined]
        networks.load_lora_state_dict = load_lora_state_dict  # type: ignore[attr-defined]
    extra_networks.register_extra_network_alias(lora_network, tag)


def forget(networks: ModuleType, path: Path) -> None:
    """Let the file at `path` be read anew for the next picture.

    Forge compares only names and multipliers with what it has merged (networks.py, current_lora_hash), and keeps the
    tensors of the last files by their names (an lru_cache).
    """
    unlisted(networks, path)
    if clear := getattr(networks.load_lora_state_dict, "cache_clear", None):
        clear()
    if hasattr(networks, "update_available_networks_by_names"):
        networks.update_available_networks_by_names([path.stem])
    else:
        networks.list_available_networks()
    if hasattr(sd_models.model_data.sd_model, "current_lora_hash"):
        sd_models.model_data.sd_model.current_lora_hash = ""


def unfit() -> str:
    """Why the chosen checkpoint cannot be opened, as one sentence; of the files only the headers are read."""
    if not can_unload():
        return "This program's model cannot be unloaded: personalize elsewhere, then put the file into its LoRA folder."
    info = chosen_checkpoint()
    if info is None:
        return _NONE_CHOSEN
    try:
        check_readable(Path(info.filename))
        for file in chosen_modules(info):
            check_vae(file)
    except UserError as error:
        return str(error)
    return ""


@contextmanager
def reopened() -> Iterator[Host]:
    """The chosen checkpoint as diffusers holds it, in the place of Forge's model, which is unloaded meanwhile."""
    # Not above: the start of the WebUI need not wait for diffusers.
    from ..hosts.diffusers import DiffusersHost

    info = chosen_checkpoint()
    if info is None:
        raise UserError(_NONE_CHOSEN)
    device = torch.device(devices.device)
    # float16 would need its gradients scaled; bfloat16 has the range of float32.
    halved = device.type == "cuda" and torch.cuda.is_bf16_supported()
    vae = next(iter(chosen_modules(info)), None)
    with unloaded(), torch.inference_mode(False), torch.enable_grad():
        # Modules are made with random numbers first: the user's pictures shall not depend on that.
        with torch.random.fork_rng(devices=[]):
            dtype = torch.bfloat16 if halved else torch.float32
            host = DiffusersHost(info.filename, device, dtype, vae, info.sha256 or "")
        try:
            # On a graphics card memory is dearer than time.
            with nullcontext() if device.type == "cpu" else host.recomputing():
                yield host
        finally:
            host.close()
