"""Run a model with a LiDB in it, and take it out again: forward hooks, no weight is touched."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import ArchitectureError
from .weights import LiDB


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
    with adding(linears, *(_factors(linears, one) for one in applied)):
        yield


@contextmanager
def adding(
    linears: Mapping[str, nn.Linear], *factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[None]:
    """Within this context every layer of `linears` computes with W + Σ up · down of all `factors`.

    factors: layer key -> (up [..., out, rank], down [..., rank, in]); gradients flow to both.
    """
    hooks = []
    try:
        for key in {key for of_one in factors for key in of_one}:
            terms = [of_one[key] for of_one in factors if key in of_one]
            hooks.append(linears[key].register_forward_hook(_adding(terms)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_fits(linears: Mapping[str, nn.Linear], lidb: LiDB) -> None:
    """Raises ArchitectureError unless every layer of `lidb` is there in its shape."""
    for layer in lidb.architecture.layers:
        linear = linears.get(layer.key)
        if linear is None or (linear.out_features, linear.in_features) != (layer.out_features, layer.in_features):
            raise ArchitectureError(
                f"This LiDB was made for a model of another architecture ({layer.key} is missing or has another "
                "shape): load the checkpoint it was made for, or personalise again on this one."
            )


def _factors(linears: Mapping[str, nn.Linear], applied: Applied) -> dict[str, tuple]:
    """layer key -> (up · multiplier, down), computed once for all the steps within the context."""
    check_fits(linears, applied.lidb)
    factors = {}
    for layer in applied.lidb.architecture.layers:
        multiplier = applied.multiplier(layer.key)
        if multiplier:
            up, down = applied.lidb.factors(layer)
            factors[layer.key] = (up * multiplier, down)
    return factors


def _adding(terms: list[tuple[torch.Tensor, torch.Tensor]]):
    def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        hidden_states = inputs[0]
        for up, down in terms:
            up, down = up.to(hidden_states), down.to(hidden_states)
            small = hidden_states @ down.mT
            # For a LiDB per sample: product and sum in one pass.
            per_sample = up.ndim == output.ndim == 3
            output = torch.baddbmm(output, small, up.mT) if per_sample else output + small @ up.mT
        return output

    return hook
