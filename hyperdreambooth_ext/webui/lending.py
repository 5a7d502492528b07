"""The loaded model lent out for training, and everything that was changed given back, whatever happens.

File names in comments are the WebUI's.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from modules import devices, lowvram, sd_hijack, sd_hijack_optimizations, shared
from torch import nn

from ..hosts.modules import recomputed
from .builtin_lora import taken_out


@contextmanager
def lent(sd_model: nn.Module, networks: ModuleType | None) -> Iterator[None]:
    """Within this context the model is as its file says, and a backward pass goes through all of it."""
    with (
        _places_kept(sd_model),
        _without_hypernetworks(),
        taken_out(networks, sd_model),
        _plain_linears(networks),
        _differentiable_attention(),
        _memory_saved(),
        torch.enable_grad(),
    ):
        yield


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """The attention optimizations off: not all of them have a backward. Torch's own is exact and saves memory."""
    places: list[tuple[Any, str]] = []
    for library in (sd_hijack.ldm, sd_hijack.sgm):
        model = library.modules.diffusionmodules.model
        attention = library.modules.attention.CrossAttention
        places += [(attention, "forward"), (model.AttnBlock, "forward"), (model, "nonlinearity")]
    # Put back exactly what was there, which may be another extension's, rather than what the settings say now.
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]
    try:
        sd_hijack.undo_optimizations()
        for library in (sd_hijack.ldm, sd_hijack.sgm):
            attention = library.modules.attention.CrossAttention
            attention.forward = sd_hijack_optimizations.scaled_dot_product_attention_forward
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


@contextmanager
def _plain_linears(networks: ModuleType | None) -> Iterator[None]:
    """Lora's own forward (networks.py, network_Linear_forward) out of torch's linear layer, where it is the last that
    was put there: with no network loaded all it does is to keep the fast change of a layer from being used."""
    patched = nn.Linear.forward
    original = getattr(getattr(networks, "originals", None), "Linear_forward", None)
    if original is None or patched is not getattr(networks, "network_Linear_forward", None):
        yield
        return
    try:
        nn.Linear.forward = original  # type: ignore[method-assign]
        yield
    finally:
        nn.Linear.forward = patched  # type: ignore[method-assign]


@contextmanager
def _without_hypernetworks() -> Iterator[None]:
    """The user's last `<hypernet:…>` stays loaded after a generation and acts in the attention's forward."""
    kept = shared.loaded_hypernetworks
    try:
        shared.loaded_hypernetworks = []
        yield
    finally:
        shared.loaded_hypernetworks = kept


@contextmanager
def _places_kept(sd_model: nn.Module) -> Iterator[None]:
    """Under --medvram one part of the model is on the GPU and the others wait; afterwards the same one (lowvram.py)."""
    if not getattr(sd_model, "lowvram", False):
        yield
        return
    there = lowvram.module_in_gpu
    try:
        yield
    finally:
        if lowvram.module_in_gpu is not there:
            lowvram.send_everything_to_cpu()
            if there is not None:
                there.to(devices.device)
                lowvram.module_in_gpu = there


def _memory_saved() -> Any:
    """On a graphics card memory is dearer than time: a UNet at 512 pixels keeps gigabytes of activations a sample."""
    if torch.device(devices.device).type == "cpu":
        return nullcontext()
    kinds = []
    for library in (sd_hijack.ldm, sd_hijack.sgm):
        unet = library.modules.diffusionmodules.openaimodel
        kinds += [library.modules.attention.BasicTransformerBlock, unet.ResBlock, unet.AttentionBlock]
    return recomputed(kinds)
