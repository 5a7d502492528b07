"""The WebUI's own network loader (extensions-builtin/Lora), which carries the tag: restored, and told to forget.

File names in comments are the WebUI's.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

# What lora_patches.py patches, and so what can hold merged weights.
_MERGED = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)


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
    names = unlisted(networks, path)
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


def unlisted(networks: ModuleType, path: Path) -> set[str]:
    """The names of the file at `path`, which are taken off the loader's lists: what they say of it is out of date."""
    names = {path.stem}
    for entries in (networks.available_networks, networks.available_network_aliases):
        for name, on_disk in list(entries.items()):
            if _same_file(on_disk, path):
                names.add(name)
                del entries[name]
    return names


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
