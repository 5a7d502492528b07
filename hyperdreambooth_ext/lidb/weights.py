"""The LiDB itself: ΔW = A_aux · A_train · B_train · B_aux for each layer (HyperDreamBooth, section 4.1).

Names follow LoRA's where the matrices meet it: `up` = A_aux · A_train, `down` = B_train · B_aux, ΔW = up · down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

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
        return StackedLiDB.of(self, layers).all_factors()

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
        return self.map(lambda tensor: tensor.detach().to("cpu", torch.float32, copy=True).contiguous())

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


@dataclass(frozen=True)
class StackedLiDB:
    """The numbers of some layers of a LiDB in one matrix per side and width: a few tensors for an optimizer to work on.

    a_rows: output width -> [..., Σ rank, a], the layers' A_trainᵀ one below the other; b_rows: input width ->
    [..., Σ rank, b], their B_train. Layers are in the order of `architecture`; `ranks`: layer key -> rank.
    """

    architecture: Architecture
    basis: Basis
    ranks: Mapping[str, int]
    a_rows: Mapping[int, torch.Tensor]
    b_rows: Mapping[int, torch.Tensor]

    @classmethod
    def of(cls, lidb: LiDB, layers: Iterable[Layer]) -> "StackedLiDB":
        """`layers` of `lidb`, copied; gradients flow."""
        architecture = Architecture(tuple(layers))
        a_rows = {
            width: torch.cat([lidb.a_train[key].mT for key in keys], dim=-2)
            for width, keys in _by_width(architecture, "out_features").items()
        }
        b_rows = {
            width: torch.cat([lidb.b_train[key] for key in keys], dim=-2)
            for width, keys in _by_width(architecture, "in_features").items()
        }
        ranks = {layer.key: lidb.a_train[layer.key].shape[-1] for layer in architecture.layers}
        return cls(architecture, lidb.basis, ranks, a_rows, b_rows)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All tensors, A before B."""
        return [*self.a_rows.values(), *self.b_rows.values()]

    def all_factors(self, layers: Iterable[Layer] = ()) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:  # noqa: ARG002
        """As LiDB.all_factors, for all of its layers."""
        ups: dict[str, torch.Tensor] = {}
        downs: dict[str, torch.Tensor] = {}
        for width, keys in _by_width(self.architecture, "out_features").items():
            rows = self.a_rows[width]
            ups |= self._by_layer(keys, rows @ self.basis.a_aux(width).T.to(rows))
        for width, keys in _by_width(self.architecture, "in_features").items():
            rows = self.b_rows[width]
            downs |= self._by_layer(keys, rows @ self.basis.b_aux(width).to(rows))
        return {layer.key: (ups[layer.key], downs[layer.key]) for layer in self.architecture.layers}

    def _by_layer(self, keys: list[str], rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(keys, rows.split([self.ranks[key] for key in keys], dim=-2), strict=True))

    @torch.no_grad()
    def within(self, lidb: LiDB) -> LiDB:
        """`lidb` with these numbers in their layers' places: views, which show what an optimizer changes here."""
        a_train, b_train = dict(lidb.a_train), dict(lidb.b_train)
        for width, keys in _by_width(self.architecture, "out_features").items():
            a_train |= {key: rows.mT for key, rows in self._by_layer(keys, self.a_rows[width]).items()}
        for width, keys in _by_width(self.architecture, "in_features").items():
            b_train |= self._by_layer(keys, self.b_rows[width])
        return LiDB(lidb.architecture, lidb.basis, a_train, b_train)


def _by_width(architecture: Architecture, side: Literal["out_features", "in_features"]) -> dict[int, list[str]]:
    keys: dict[int, list[str]] = {}
    for layer in architecture.layers:
        keys.setdefault(getattr(layer, side), []).append(layer.key)
    return keys


def zeros(architecture: Architecture, basis: Basis, rank: int, generator: torch.Generator) -> LiDB:
    """The start that changes nothing: A_train zero, B_train random with rows of length about 1."""
    empty_a, empty_b = {}, {}
    for layer in architecture.layers:
        a, b = basis.sizes(layer.out_features, layer.in_features)
        empty_a[layer.key], empty_b[layer.key] = torch.zeros(a, 0), torch.zeros(0, b)
    return LiDB(architecture, basis, empty_a, empty_b).relaxed(rank, generator)
