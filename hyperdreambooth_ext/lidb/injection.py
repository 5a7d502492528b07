"""Run a model with a LiDB in it, and take it out again: layers compute otherwise, no weight is touched."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import linear as torch_linear

from ..errors import ArchitectureError
from .linear import ChangedLinear, pays_to_merge
from .weights import LiDB, StackedLiDB

Terms = list[tuple[torch.Tensor, torch.Tensor]]
# Numbers in a weight whose copy is no burden (1 MB), and more rows than any such weight needs for merging to pay.
_SMALL_WEIGHT, _STEPS_AHEAD = 1 << 18, 1 << 18


@dataclass(frozen=True)
class Applied:
    """A LiDB and how strongly it acts in the UNet and in the text encoder."""

    lidb: LiDB | StackedLiDB
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
    terms: dict[str, Terms] = {}
    for one in applied:
        for key, term in _factors(linears, one).items():
            terms.setdefault(key, []).append(term)
    with forwards({linears[key]: _changed_forward(linears[key], of_layer) for key, of_layer in terms.items()}):
        yield


@contextmanager
def forwards(changed: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Within this context these modules compute this."""
    own = {module: vars(module).get("forward") for module in changed}
    try:
        for module, forward in changed.items():
            module.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for module, before in own.items():
            if before is None:
                del module.forward
            else:
                module.forward = before  # type: ignore[method-assign]


def check_fits(linears: Mapping[str, nn.Linear], lidb: LiDB | StackedLiDB) -> None:
    """Raises ArchitectureError unless every layer of `lidb` is there in its shape."""
    for layer in lidb.architecture.layers:
        linear = linears.get(layer.key)
        if linear is None or (linear.out_features, linear.in_features) != (layer.out_features, layer.in_features):
            differs = f"This LiDB was made for a model of another architecture ({layer.key} differs)"
            raise ArchitectureError(f"{differs}: load its checkpoint, or personalize again.")


def _factors(linears: Mapping[str, nn.Linear], applied: Applied) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """layer key -> (upᵀ · multiplier, down), computed once for all the steps within the context."""
    check_fits(linears, applied.lidb)
    layers = [layer for layer in applied.lidb.architecture.layers if applied.multiplier(layer.key)]
    factors = applied.lidb.all_factors(layers)
    if applied.unet == applied.text == 1:  # in training: hundreds of products that change nothing would be felt
        return factors
    return {key: (up_t * applied.multiplier(key), down) for key, (up_t, down) in factors.items()}


def _changed_forward(linear: nn.Linear, terms: Terms):
    """What `linear` computes instead of its own forward."""
    own_forward = vars(linear).get("forward")
    fast = _Fast(linear, terms) if all(up_t.ndim == 2 for up_t, _ in terms) else None

    def forward(x: torch.Tensor) -> torch.Tensor:
        if fast is not None and own_forward is None and _is_plain(linear, x):
            return fast(x)
        # Whatever the class computes at this moment: programs around us exchange it.
        output = type(linear).forward(linear, x) if own_forward is None else own_forward(x)
        for up_t, down in terms:
            thin, up_t = x @ down.to(x).mT, up_t.to(x)
            # For a LiDB per sample product and sum in one pass.
            per_sample = up_t.ndim == output.ndim == 3 and len(up_t) == len(output) and output.dtype == thin.dtype
            output = torch.baddbmm(output, thin, up_t) if per_sample else output + thin @ up_t
        return output

    return forward


def _is_plain(linear: nn.Linear, x: torch.Tensor) -> bool:
    """Whether nobody has put something else in the place of torch's own linear layer."""
    # By where its code lives: a wrapper may carry the name and the module of what it wraps.
    own = getattr(type(linear).forward, "__globals__", None) is vars(torch_linear)
    return own and not linear.weight.requires_grad and x.ndim > 1


class _Fast:
    """A plain linear layer with one change for all samples; several LiDBs are one of their ranks' sum."""

    def __init__(self, linear: nn.Linear, terms: Terms) -> None:
        self._linear = linear
        self._up_t, self._down = terms[0] if len(terms) == 1 else map(torch.cat, zip(*terms, strict=True))
        self._merged: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        dtype = _autocast_dtype(x.device.type)
        samples = len(x)
        # A condition that all samples share, `expand`ed, needs to be looked at only once.
        shared = x.ndim > 2 and samples > 1 and x.stride(0) == 0
        x = x[:1] if shared else x
        if dtype is None:
            output = self._changed(x)
        else:
            with torch.autocast(x.device.type, enabled=False):
                output = self._changed(x.to(dtype))
        return output.expand(samples, *output.shape[1:]) if shared else output

    def _changed(self, x: torch.Tensor) -> torch.Tensor:
        linear = self._linear
        bias = None if linear.bias is None else linear.bias.to(x)
        merged = None if torch.is_grad_enabled() else self._merged_for(x)
        if merged is not None:
            return F.linear(x, merged, bias)
        return ChangedLinear.apply(x, linear.weight.to(x), bias, self._up_t.to(x), self._down.to(x))

    def _merged_for(self, x: torch.Tensor) -> torch.Tensor | None:
        """The changed weight, where it pays: kept for all the steps of a sampler within the context."""
        weight = self._linear.weight
        # For a sampler's many steps a small weight is worth its copy even where one step alone would not pay for it.
        rows = max(x.numel() // x.shape[-1], _STEPS_AHEAD if weight.numel() <= _SMALL_WEIGHT else 0)
        if not pays_to_merge(weight, rows) or not _alike(weight, x):
            return None
        if self._merged is None or not _alike(self._merged, x):
            self._merged = torch.addmm(weight, self._up_t.to(weight).mT, self._down.to(weight))
        return self._merged


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device


def _autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast would compute a linear layer in; None where it is off."""
    if device == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
