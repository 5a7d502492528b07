"""The WebUI's own network loader (extensions-builtin/Lora), which carries the tag: found, restored, told to forget.

File names in comments are the WebUI's.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from modules import extra_networks
from torch import nn

# What lora_patches.py patches, and so what can hold merged weights.
_MERGED = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


def find_networks() -> ModuleType | None:
    """Lora's module `networks`; None when Lora is switched off, or when this is another program's LoRA loader."""
    networks = _networks()
    return networks if hasattr(networks, "module_types") and hasattr(networks, "network_apply_weights") else None


def find_forge_networks() -> ModuleType | None:
    """The module of that name in Forge, whose loader takes tables of tensors."""
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


@contextmanager
def taken_out(networks: ModuleType | None, sd_model: nn.Module) -> Iterator[None]:
    """Within this context the user's last LoRAs are out of the weights; afterwards they are merged again."""
    if networks is None:
        yield
        return
    merged = _merged_layers([sd_model])
    try:
        with _nothing_loaded(networks):
            _apply(networks, merged)
            yield
    finally:
        _apply(networks, merged)


def forget(networks: ModuleType, path: Path, sd_models: Iterable[nn.Module]) -> None:
    """Let nothing of the file that was at `path` before live on, in memory or merged in weights; list the new one.

    A layer compares only a network's name with what it has merged (networks.py, network_apply_weights).
    """
    names = {path.stem}
    for entries in (networks.available_networks, networks.available_network_aliases):
        for name, on_disk in list(entries.items()):
            if _same_file(on_disk, path):
                names.add(name)
                del entries[name]
    for name in names:
        networks.networks_in_memory.pop(name, None)
    # Also in models that are kept aside. What else was merged comes back with the next picture that asks for it.
    stale = [
        layer for layer in _merged_layers(sd_models) if names & {merged[0] for merged in layer.network_current_names}
    ]
    networks.loaded_networks[:] = [network for network in networks.loaded_networks if network.name not in names]
    with _nothing_loaded(networks):
        _apply(networks, stale)
    networks.update_available_networks_by_names([path.stem])


def _merged_layers(sd_models: Iterable[nn.Module]) -> list[nn.Module]:
    return [
        module
        for sd_model in sd_models
        for module in sd_model.modules()
        if isinstance(module, _MERGED) and vars(module).get("network_current_names")
    ]


@contextmanager
def _nothing_loaded(networks: ModuleType) -> Iterator[None]:
    loaded = list(networks.loaded_networks)
    try:
        networks.loaded_networks.clear()
        yield
    finally:
        networks.loaded_networks[:] = loaded


def _apply(networks: ModuleType, layers: list[nn.Module]) -> None:
    """Let each layer hold the networks that are loaded, and no others."""
    with torch.no_grad():
        for layer in layers:
            networks.network_apply_weights(layer)


def _same_file(on_disk: Any, path: Path) -> bool:
    return Path(on_disk.filename).resolve() == path.resolve()
