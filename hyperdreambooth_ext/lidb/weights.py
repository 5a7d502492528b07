"""The LiDB itself: ΔW = A_aux · A_train · B_train · B_aux for each layer (HyperDreamBooth, section 4.1).

Names follow LoRA's where the matrices meet it: `up` = A_aux · A_train, `down` = B_train · B_aux, ΔW = up · down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from .basis import AnyBasis, Basis, Side, rows_like
from .layers import Architecture, Layer
from .stored_basis import StoredBasis


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
        return [side[layer.key] for side in (self.a_train, self.b_train) for layer in self.architecture.layers]

    def numel(self) -> int:
        """How many numbers are trained: 28,800 for SD 1.5 at rank 1."""
        return sum(tensor.numel() for tensor in self.parameters)

    def all_factors(self, layers: Iterable[Layer]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """layer key -> (upᵀ [..., rank, out], down [..., rank, in]), rows in one piece; gradients flow to the numbers.

        With a Hadamard basis it is one product for all layers of one width: hundreds of small ones would take longer
        than what they compute. In a stored one each layer has a basis of its own, so there it is one a layer.
        """
        return StackedLiDB.of(self, layers).all_factors()

    def map(self, change) -> "LiDB":
        """A LiDB with `change(tensor)` in place of every tensor."""
        sides = [{key: change(value) for key, value in side.items()} for side in (self.a_train, self.b_train)]
        return LiDB(self.architecture, self.basis, *sides)

    def to(self, device: torch.device) -> "LiDB":
        """The same on `device`, without gradients; a stored basis too, so that it is not copied at every use."""
        moved = self.map(lambda tensor: tensor.detach().to(device))
        return replace(moved, basis=self.basis.to(device)) if isinstance(self.basis, StoredBasis) else moved

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
    basis: AnyBasis
    ranks: Mapping[str, int]
    a_rows: Mapping[int, torch.Tensor]
    b_rows: Mapping[int, torch.Tensor]

    @classmethod
    def of(cls, lidb: LiDB, layers: Iterable[Layer]) -> "StackedLiDB":
        """`layers` of `lidb`, copied; gradients flow."""
        architecture = Architecture(tuple(layers))
        a_rows = {
            width: torch.cat([lidb.a_train[layer.key].mT for layer in of_width], dim=-2)
            for width, of_width in _by_width(architecture, "a").items()
        }
        b_rows = {
            width: torch.cat([lidb.b_train[layer.key] for layer in of_width], dim=-2)
            for width, of_width in _by_width(architecture, "b").items()
        }
        ranks = {layer.key: lidb.a_train[layer.key].shape[-1] for layer in architecture.layers}
        return cls(architecture, lidb.basis, ranks, a_rows, b_rows)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All tensors, A before B."""
        return [*self.a_rows.values(), *self.b_rows.values()]

    def all_factors(self, layers: Iterable[Layer] = ()) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:  # noqa: ARG002
        """As LiDB.all_factors, for all of its layers."""
        ups, downs = self._products("a", self.a_rows), self._products("b", self.b_rows)
        return {layer.key: (ups[layer.key], downs[layer.key]) for layer in self.architecture.layers}

    def _products(self, side: Side, rows: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        """layer key -> its rows times its A_auxᵀ or B_aux."""
        products: dict[str, torch.Tensor] = {}
        for width, layers in _by_width(self.architecture, side).items():
            like = rows[width]
            if isinstance(self.basis, Basis):
                # The first layer's basis is that of all of this width.
                products |= self._by_layer(layers, like @ rows_like(self.basis, layers[0], like, side))
            else:
                own = self._by_layer(layers, like)
                products |= {x.key: own[x.key] @ rows_like(self.basis, x, like, side) for x in layers}
        return products

    def _by_layer(self, layers: list[Layer], rows: torch.Tensor) -> dict[str, torch.Tensor]:
        keys = [layer.key for layer in layers]
        return dict(zip(keys, rows.split([self.ranks[key] for key in keys], dim=-2), strict=True))

    def columns(self, values: Mapping[str, float]) -> list[torch.Tensor]:
        """For each parameter its rows' layers' values [Σ rank, 1], of `values` by layer key."""
        columns = []
        sides: tuple[tuple[Side, Mapping[int, torch.Tensor]], ...] = (("a", self.a_rows), ("b", self.b_rows))
        for side, of_width in sides:
            layers = _by_width(self.architecture, side)
            for width, rows in of_width.items():
                columns.append(torch.cat([rows.new_full((self.ranks[x.key], 1), values[x.key]) for x in layers[width]]))
        return columns

    def moved(self, by: Iterable[torch.Tensor]) -> "StackedLiDB":
        """A copy with its parameters changed `by` so much, in their order."""
        new = [parameter.detach() + change for parameter, change in zip(self.parameters, by, strict=True)]
        a_rows = dict(zip(self.a_rows, new))  # noqa: B905  (the first ones)
        return replace(self, a_rows=a_rows, b_rows=dict(zip(self.b_rows, new[len(a_rows) :], strict=True)))

    @torch.no_grad()
    def within(self, lidb: LiDB) -> LiDB:
        """`lidb` with these numbers in their layers' places: views, which show what an optimizer changes here."""
        a_train, b_train = dict(lidb.a_train), dict(lidb.b_train)
        for width, of_width in _by_width(self.architecture, "a").items():
            a_train |= {key: rows.mT for key, rows in self._by_layer(of_width, self.a_rows[width]).items()}
        for width, of_width in _by_width(self.architecture, "b").items():
            b_train |= self._by_layer(of_width, self.b_rows[width])
        return LiDB(lidb.architecture, lidb.basis, a_train, b_train)


def _by_width(architecture: Architecture, side: Side) -> dict[int, list[Layer]]:
    """The layers of each output width (side "a") or input width."""
    widths: dict[int, list[Layer]] = {}
    for layer in architecture.layers:
        widths.setdefault(layer.out_features if side == "a" else layer.in_features, []).append(layer)
    return widths


def zeros(architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator) -> LiDB:
    """The start that changes nothing: A_train zero, B_train random with rows of length about 1."""
    empty_a, empty_b = {}, {}
    for layer in architecture.layers:
        a, b = basis.sizes_of(layer)
        empty_a[layer.key], empty_b[layer.key] = torch.zeros(a, 0), torch.zeros(0, b)
    return LiDB(architecture, basis, empty_a, empty_b).relaxed(rank, generator)
