"""Which WebUI this is, told by what it can do: AUTOMATIC1111's, Forge, reForge, Forge Classic or Neo, or one unknown.

Whatever differs between them is asked for here, and nothing that one of them took away is imported at the top. File
names in comments are the WebUI's.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from modules import extra_networks, sd_models, shared


def find_networks() -> ModuleType | None:
    """The built-in Lora's module `networks`; None when it is switched off, or is another program's LoRA loader."""
    networks = _networks()
    return networks if hasattr(networks, "module_types") and hasattr(networks, "network_apply_weights") else None


def find_forge_networks() -> ModuleType | None:
    """The module of that name in Forge and its kin, whose loader takes tables of tensors."""
    networks = _networks()
    return networks if hasattr(networks, "load_lora_state_dict") else None


def any_networks() -> Any:
    """Whichever of the two is there: both list files by name, alias and hash."""
    return find_networks() or find_forge_networks()


def why_missing() -> str:
    """One sentence for the user; empty when a loader that we can teach is there."""
    if any_networks() is not None:
        return ""
    if _networks() is not None:
        return (
            "This program's LoRA loader cannot read LiDB files: export the LiDB as a LoRA in the HyperDreamBooth tab."
        )
    return "The built-in extension Lora is switched off, and the tag <lidb:…> needs it: switch it on under Extensions."


def lora_network() -> Any:
    """The registered network of the tag `<lora:…>`, or None."""
    return extra_networks.extra_network_registry.get("lora")


def _networks() -> ModuleType | None:
    # Its folder is not on sys.path any more, and another extension may have a module of that name.
    module = sys.modules.get(type(lora_network()).__module__)
    return getattr(module, "networks", None)


def missing_package() -> str:
    """One sentence for the user about a package that a fork does not bring; empty when all are there."""
    # Only what is trained apart from the program's model is opened with diffusers.
    needed = ("timm", "diffusers") if patches_models() else ("timm",)
    for name in needed:
        if find_spec(name) is None:
            return (
                f"The package {name} is missing: connect to the network and restart, or install it into this program's "
                "environment with pip."
            )
    return ""


def patches_models() -> bool:
    """Whether the program patches weights as it moves them (Forge and its kin), so that the model that it has loaded
    cannot be trained on in place."""
    data = sd_models.model_data
    return (
        hasattr(sd_models, "forge_loader")
        or hasattr(data, "forge_loading_parameters")
        or hasattr(data.sd_model, "forge_objects")
    )


def can_unload() -> bool:
    """Whether such a program's model can be taken out of memory, and is loaded again when it is needed."""
    data = sd_models.model_data
    loads_by_itself = hasattr(data, "forge_loading_parameters") or hasattr(data, "was_loaded_at_least_once")
    return _memory_manager() is not None and loads_by_itself


@contextmanager
def unloaded() -> Iterator[None]:
    """Within this context the program's model is out of memory; afterwards it loads it when it is needed next."""
    data = sd_models.model_data
    reloads = hasattr(data, "forge_loading_parameters")
    _memory_manager().unload_all_models()
    _forget_task_of(data.sd_model)
    # As when the program has just been started; Neo keeps the model in both places.
    shared.sd_model = data.sd_model = sd_models.FakeInitialModel() if reloads else None
    if reloads:
        # What forge_model_reload() compares with what is chosen.
        data.forge_hash = ""
    else:
        # Else whoever asks for the model meanwhile, such as a page that counts tokens, would load it.
        data.was_loaded_at_least_once = True
        data.loaded_sd_models.clear()
    _free()
    try:
        yield
    finally:
        if not reloads:
            data.was_loaded_at_least_once = False
        _free()


def _forget_task_of(sd_model: Any) -> None:
    """The task that loads the model at the start of reForge and Forge Classic keeps it as its result for ever, since
    nobody waits for that (modules_forge/main_thread.py, run by initialize.py)."""
    for task in getattr(sys.modules.get("modules_forge.main_thread"), "finished_list", ()):
        if task.result is sd_model:
            task.result = None


def _free() -> None:
    gc.collect()
    _memory_manager().soft_empty_cache()
    # glibc keeps what a thread has freed for that thread, and each job has a thread of its own: gigabytes that neither
    # the next job nor the program's own model could use.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _memory_manager() -> Any:
    """backend/memory_management.py in Forge and Neo, ldm_patched/modules/model_management.py in the others."""
    return getattr(sd_models, "memory_management", None) or getattr(sd_models, "model_management", None)


def chosen_checkpoint() -> Any:
    """The CheckpointInfo of the model that the user chose, loaded or not; None when there is none to choose."""
    info = getattr(sd_models.model_data, "forge_loading_parameters", {}).get("checkpoint_info")
    return info or (sd_models.select_checkpoint() if sd_models.checkpoints_list else None)


def chosen_modules(info: Any) -> list[Path]:
    """The files that are loaded in the place of parts of this checkpoint: a VAE of its own, or a text encoder."""
    parameters = getattr(sd_models.model_data, "forge_loading_parameters", None)
    if parameters is not None:
        return [Path(file) for file in parameters.get("additional_modules") or ()]
    # Not in Neo.
    from modules import sd_vae

    vae = sd_vae.resolve_vae(info.filename).vae
    return [Path(vae)] if vae else []
