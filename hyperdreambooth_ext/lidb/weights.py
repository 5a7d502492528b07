"""The LiDB itself: ΔW = A_aux · A_train · B_train · B_aux for each layer (HyperDreamBooth, section 4.1).

Names follow LoRA's where the matrices meet it: `up` = A_aux · A_train, `down` = B_train · B_aux, ΔW = up · down.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from .basis import Basis
from .layers import Architecture, Layer


@dataclass(frozen=True)
class LiDB:
    """The trained numbers of one person.

    a_train: layer key -> float32 [..., a, rank]; b_train: layer key -> float32 [..., rank, b].
    A leading dimension, where there is one, holds one person per sample of a batch.
    """

    architecture: Architecture
    basis: Basis
    a_train: Mapping[str, torch.Tensor]
    b_train: Mapping[str, torch.Tensor]

    @property
    def rank(self) -> int:
        return next(iter(self.a_train.values())).shape[-1]

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All trained tensors, A before B, in the order of the layers."""
        return [self.a_train[layer.key] for layer in self.architecture.layers] + [
            self.b_train[layer.key] for layer in self.architecture.layers
        ]

    def numel(self) -> int:
        """How many numbers are trained: 28,800 for SD 1.5 at rank 1."""
        return sum(tensor.numel() for tensor in self.parameters)

    def factors(self, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
        """(up [..., out, rank], down [..., rank, in]) of one layer; gradients flow to a_train and b_train."""
        a_train, b_train = self.a_train[layer.key], self.b_train[layer.key]
        a_aux = self.basis.a_aux(layer.out_features).to(a_train.device, a_train.dtype)
        b_aux = self.basis.b_aux(layer.in_features).to(b_train.device, b_train.dtype)
        return a_aux @ a_train, b_train @ b_aux

    def all_factors(self, layers: Iterable[Layer]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """layer key -> (upᵀ [..., rank, out], down [..., rank, in]), both with their rows in one piece.

        One product for all layers of one width: hundreds of small ones would take longer than what they compute.
        """
        layers = list(layers)
        ups = _projected({layer.key: self.a_train[layer.key].mT for layer in layers},
                         {layer.key: layer.out_features for layer in layers}, lambda out: self.basis.a_aux(out).T)
        downs = _projected({layer.key: self.b_train[layer.key] for layer in layers},
                           {layer.key: layer.in_features for layer in layers}, self.basis.b_aux)  # fmt: skip
        return {layer.key: (ups[layer.key], downs[layer.key]) for layer in layers}

    def delta(self, layer: Layer) -> torch.Tensor:
        """ΔW [..., out, in] of one layer."""
        up, down = self.factors(layer)
        return up @ down

    def map(self, change) -> "LiDB":
        """A LiDB with `change(tensor)` in place of every tensor."""
        return LiDB(
            self.architecture,
            self.basis,
            {key: change(value) for key, value in self.a_train.items()},
            {key: change(value) for key, value in self.b_train.items()},
        )

    def trainable(self) -> "LiDB":
        """A copy whose tensors are leaves that require gradients."""
        return self.map(lambda tensor: tensor.detach().clone().requires_grad_())

    def detached(self) -> "LiDB":
        """A copy on the CPU, float32, that nothing can train on."""
        return self.map(lambda tensor: tensor.detach().to("cpu", torch.float32, copy=True))

    def relaxed(self, rank: int, generator: torch.Generator) -> "LiDB":
        """The same ΔW with room for `rank` directions a layer (rank-relaxed fast finetuning, section 4.3).

        The new columns of A_train are zero and the new rows of B_train are random: nothing changes until training.
        """
        extra = rank - self.rank
        if extra < 0:
            raise ValueError(f"a LiDB of rank {self.rank} cannot be relaxed to rank {rank}")
        a_train, b_train = {}, {}
        for layer in self.architecture.layers:
            a, b = self.a_train[layer.key], self.b_train[layer.key]
            rows = torch.randn(extra, b.shape[-1], generator=generator) / b.shape[-1] ** 0.5
            a_train[layer.key] = torch.cat([a, a.new_zeros(*a.shape[:-1], extra)], dim=-1)
            b_train[layer.key] = torch.cat([b, rows.to(b).expand(*b.shape[:-2], extra, b.shape[-1])], dim=-2)
        return LiDB(self.architecture, self.basis, a_train, b_train)


def _projected(
    rows: Mapping[str, torch.Tensor], widths: Mapping[str, int], basis_of: Callable[[int], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """layer key -> rows [..., rank, b] · basis [b, width]."""
    projected: dict[str, torch.Tensor] = {}
    for width in sorted(set(widths.values())):
        keys = [key for key in widths if widths[key] == width]
        together = torch.cat([rows[key] for key in keys], dim=-2)
        ranks = [rows[key].shape[-2] for key in keys]
        projected |= zip(keys, (together @ basis_of(width).to(together)).split(ranks, dim=-2), strict=True)
    return projected


def zeros(architecture: Architecture, basis: Basis, rank: int, generator: torch.Generator) -> LiDB:
    """The start that changes nothing: A_train zero, B_train random with rows of length about 1."""
    empty_a, empty_b = {}, {}
    for layer in architecture.layers:
        a, b = basis.sizes(layer.out_features, layer.in_features)
        empty_a[layer.key], empty_b[layer.key] = torch.zeros(a, 0), torch.zeros(0, b)
    return LiDB(architecture, basis, empty_a, empty_b).relaxed(rank, generator)
