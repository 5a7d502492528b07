"""The LiDB itself: ΔW = A_aux · A_train · B_train · B_aux for each layer (HyperDreamBooth, section 4.1).

Names follow LoRA's where the matrices meet it: `up` = A_aux · A_train, `down` = B_train · B_aux, ΔW = up · down.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .basis import AnyBasis, on_device
from .layers import Architecture, Layer


@dataclass(frozen=True)
class LiDB:
    """The trained numbers of one person.

    a_train: layer key -> float32 [..., a, rank]; b_train: layer key -> float32 [..., rank, b].
    A leading dimension, where there is one, holds one person per sample of a batch.
    """

    architecture: Architecture
    basis: AnyBasis
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
        a_aux, b_aux = on_device(self.basis, layer, a_train, "a"), on_device(self.basis, layer, b_train, "b")
        return a_aux @ a_train, b_train @ b_aux

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


def zeros(architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator) -> LiDB:
    """The start that changes nothing: A_train zero, B_train random with rows of length about 1."""
    empty_a, empty_b = {}, {}
    for layer in architecture.layers:
        a, b = basis.sizes_of(layer)
        empty_a[layer.key], empty_b[layer.key] = torch.zeros(a, 0), torch.zeros(0, b)
    return LiDB(architecture, basis, empty_a, empty_b).relaxed(rank, generator)
