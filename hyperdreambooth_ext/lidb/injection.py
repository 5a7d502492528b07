"""Run a model with a LiDB in it, and take it out again: layers compute otherwise, no weight is touched."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import ArchitectureError
from .linear import ChangedLinear
from .weights import LiDB

Terms = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Applied:
    """A LiDB and how strongly it acts in the UNet and in the text encoder."""

    lidb: LiDB
    unet: float = 1.0
    text: float = 1.0

    def multiplier(self, key: str) -> float:
        return self.unet if key.startswith("lora_unet_") else self.text


@contextmanager
def injected(linears: Mapping[str, nn.Linear], *applied: Applied) -> Iterator[None]:
    """Within this context every layer of `linears` (kohya key -> module) computes with W + Σ multiplier · ΔW.

    Gradients flow to the LiDB's numbers. A LiDB with a leading batch dimension gives each sample its own ΔW.
    Raises ArchitectureError when a layer is missing or has another shape.
    """
    factors = [_factors(linears, one) for one in applied]
    changed = []
    try:
        for key in {key for of_one in factors for key in of_one}:
            linear = linears[key]
            changed.append((linear, vars(linear).get("forward")))
            linear.forward = _changed_forward(  # type: ignore[method-assign]
                linear, [of_one[key] for of_one in factors if key in of_one]
            )
        yield
    finally:
        for linear, own_forward in reversed(changed):
            if own_forward is None:
                del linear.forward
            else:
                linear.forward = own_forward  # type: ignore[method-assign]


def check_fits(linears: Mapping[str, nn.Linear], lidb: LiDB) -> None:
    """Raises ArchitectureError unless every layer of `lidb` is there in its shape."""
    for layer in lidb.architecture.layers:
        linear = linears.get(layer.key)
        if linear is None or (linear.out_features, linear.in_features) != (layer.out_features, layer.in_features):
            raise ArchitectureError(
                f"This LiDB was made for a model of another architecture ({layer.key} is missing or has another "
                "shape): load the checkpoint it was made for, or personalise again on this one."
            )


def _factors(linears: Mapping[str, nn.Linear], applied: Applied) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """layer key -> (upᵀ · multiplier, down), computed once for all the steps within the context."""
    check_fits(linears, applied.lidb)
    layers = [layer for layer in applied.lidb.architecture.layers if applied.multiplier(layer.key)]
    factors = applied.lidb.all_factors(layers)
    return {key: (up_t * applied.multiplier(key), down) for key, (up_t, down) in factors.items()}


def _changed_forward(linear: nn.Linear, terms: Terms):
    """What `linear` computes instead of its own forward."""
    own_forward = vars(linear).get("forward")
    one_person = all(up_t.ndim == 2 for up_t, _ in terms)
    if one_person:
        up_t, down = (torch.cat(parts) for parts in zip(*terms, strict=True))

    def forward(x: torch.Tensor) -> torch.Tensor:
        if one_person and own_forward is None and _is_plain(linear, x):
            return _fast(linear, x, up_t, down)
        # Whatever the class computes at this moment: programs around us exchange it.
        output = type(linear).forward(linear, x) if own_forward is None else own_forward(x)
        for of_one_up_t, of_one_down in terms:
            output = output + (x @ of_one_down.to(x).mT) @ of_one_up_t.to(x)
        return output

    return forward


def _is_plain(linear: nn.Linear, x: torch.Tensor) -> bool:
    """Whether nobody has put something else in the place of torch's own linear layer."""
    own = type(linear).forward
    return own.__module__ == nn.Linear.__module__ and not linear.weight.requires_grad and x.ndim > 1


def _fast(linear: nn.Linear, x: torch.Tensor, up_t: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    samples = len(x)
    # A condition that all samples share, `expand`ed, needs to be looked at only once.
    shared = x.ndim > 2 and samples > 1 and x.stride(0) == 0
    x = x[:1] if shared else x
    dtype = _autocast_dtype(x.device.type)
    with nullcontext() if dtype is None else torch.autocast(x.device.type, enabled=False):
        x = x if dtype is None else x.to(dtype)
        bias = None if linear.bias is None else linear.bias.to(x)
        output = ChangedLinear.apply(x, linear.weight.to(x), bias, up_t.to(x), down.to(x))
    return output.expand(samples, *output.shape[1:]) if shared else output


def _autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast would compute a linear layer in; None where it is off."""
    if device == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
