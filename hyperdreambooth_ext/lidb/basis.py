"""The frozen bases A_aux and B_aux: rows of a Hadamard matrix, the same on every machine for ever.

The paper asks for random, row-wise orthogonal bases whose rows have one magnitude (HyperDreamBooth, section 4.1).
Rows of a Hadamard matrix with random column signs are exactly that, and they are built from integers alone: no
random generator, BLAS or device of any version can change a bit of them.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from .layers import MAX_NUMBERS, MAX_ROWS, MAX_WIDTH, Layer
from .stored_basis import ALGORITHM as STORED
from .stored_basis import StoredBasis

ALGORITHM = "hadamard-sha256-v1"
# The largest matrix that others are doubled from which a file may ask for; those of Stable Diffusion are far smaller.
MAX_CORE = 1024


@dataclass(frozen=True)
class Basis:
    """Which bases: `a` rows on the output side, `b` rows on the input side, chosen by `seed`."""

    a: int = 100
    b: int = 50
    seed: int = 0

    def sizes_of(self, layer: Layer) -> tuple[int, int]:
        """How many directions the layer has on either side, (a, b): no more than the order of its Hadamard matrix."""
        return min(self.a, hadamard_order(layer.out_features)), min(self.b, hadamard_order(layer.in_features))

    def a_of(self, layer: Layer) -> torch.Tensor:
        """A_aux with orthonormal columns, float32 [out, a], on the CPU: the same for all layers of one width."""
        return _orthonormal_rows("A", self.a, layer.out_features, self.seed).T

    def b_of(self, layer: Layer) -> torch.Tensor:
        """B_aux with orthonormal rows, float32 [b, in], on the CPU."""
        return _orthonormal_rows("B", self.b, layer.in_features, self.seed)

    def to_dict(self) -> dict:
        return {"algorithm": ALGORITHM, "a": self.a, "b": self.b, "seed": self.seed}

    @classmethod
    def from_dict(cls, values: dict) -> "Basis":
        """The inverse of `to_dict`, for what a stranger wrote. Raises ValueError, KeyError or TypeError."""
        if values["algorithm"] != ALGORITHM:
            raise ValueError(f"its basis {str(values['algorithm'])[:40]!r} is not known here")
        a, b, seed = (values[name] for name in ("a", "b", "seed"))
        if not all(type(value) is int for value in (a, b, seed)):
            raise ValueError("its basis has no whole numbers")
        if not (0 < a <= MAX_ROWS and 0 < b <= MAX_ROWS and 0 <= seed < 1 << 64):
            raise ValueError("its basis has no possible size")
        return cls(a, b, seed)


# What a LiDB can speak in: `sizes_of`, `a_of`, `b_of` and `to_dict` are all that anybody needs of one.
AnyBasis = Basis | StoredBasis
# The output side, A_aux, or the input side, B_aux.
Side = Literal["a", "b"]


def basis_from_dict(values: dict) -> AnyBasis:
    """The basis that a stranger's header describes or names. Raises ValueError, KeyError or TypeError."""
    return StoredBasis.from_dict(values) if values["algorithm"] == STORED else Basis.from_dict(values)


def check_sizes(basis: AnyBasis, layer: Layer) -> None:
    """Raises ValueError for a layer whose bases would take absurd memory to make. Makes nothing itself."""
    for rows, width in ((basis.a, layer.out_features), (basis.b, layer.in_features)):
        if not 0 < width <= MAX_WIDTH:
            raise ValueError(f"a layer cannot be {width} wide")
        core = _hadamard_parts(width)[0] if isinstance(basis, Basis) else 0
        if min(rows, width) * width > MAX_NUMBERS or core > MAX_CORE:
            raise ValueError(f"a basis of {rows} rows of {width} numbers is none that any model needs")


def rows_like(basis: AnyBasis, layer: Layer, like: torch.Tensor, side: Side) -> torch.Tensor:
    """A_auxᵀ [a, out] or B_aux [b, in] of a layer in the device and dtype of `like`; a Hadamard basis is copied there
    once a width."""
    if isinstance(basis, StoredBasis):
        return (basis.a_of(layer).mT if side == "a" else basis.b_of(layer)).to(like.device, like.dtype)
    rows, width = (basis.a, layer.out_features) if side == "a" else (basis.b, layer.in_features)
    return _moved(side.upper(), rows, width, basis.seed, like.device, like.dtype)


@lru_cache(maxsize=128)
def _moved(
    side: str, rows: int, width: int, seed: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:  # fmt: skip
    # Cached: one that was made while somebody samples in inference mode could not be trained with afterwards.
    with torch.inference_mode(False):
        return _orthonormal_rows(side, rows, width, seed).to(device, dtype)


@lru_cache(maxsize=64)
def _orthonormal_rows(side: str, rows: int, width: int, seed: int) -> torch.Tensor:
    """At most `rows` orthonormal rows of `width` numbers.

    Every width in Stable Diffusion has its Hadamard matrix; elsewhere the channels past the largest order stay zero.
    """
    core_order, doublings = _hadamard_parts(width)
    core, order = _paley(core_order), core_order << doublings
    rows = min(rows, order)
    numbers = _integers(f"{ALGORITHM}/{side}/{width}/{seed}", 2 * order)
    chosen = np.argsort(numbers[:order], kind="stable")[:rows]
    signs = (numbers[order:] >> np.uint64(63)).astype(np.int8) * 2 - 1
    matrix = np.zeros((rows, width), dtype=np.float32)
    matrix[:, :order] = _hadamard_rows(core, doublings, chosen) * signs
    with torch.inference_mode(False):
        return torch.from_numpy(matrix / np.sqrt(np.float32(order)))


def hadamard_order(width: int) -> int:
    """The largest order of a Hadamard matrix, at most `width`, that can be built here."""
    core, doublings = _hadamard_parts(width)
    return core << doublings


def _integers(name: str, count: int) -> np.ndarray:
    """`count` uniform 64-bit integers that depend on `name` alone: SHA-256 in counter mode."""
    blocks = (hashlib.sha256(f"{name}/{i}".encode()).digest() for i in range(-(-count // 4)))
    return np.frombuffer(b"".join(blocks), dtype="<u8")[:count].astype(np.uint64)


def _hadamard_rows(core: np.ndarray, doublings: int, rows: np.ndarray) -> np.ndarray:
    """Rows of core ⊗ [[1, 1], [1, -1]] ⊗ …, as ±1, without building the whole matrix."""
    size = 1 << doublings
    bits = (rows % size)[:, None] & np.arange(size)
    parity = np.zeros_like(bits)
    for shift in range(doublings):
        parity ^= (bits >> shift) & 1
    sylvester = (1 - 2 * parity).astype(np.int8)
    return (core[rows // size][:, :, None] * sylvester[:, None, :]).reshape(len(rows), -1)


@lru_cache(maxsize=256)
def _hadamard_parts(width: int) -> tuple[int, int]:
    """The largest order <= width that is (a Paley core) · 2^k, as the smallest such core's order and k; arithmetic
    alone: a file may claim any width, and a core of that order may not fit into memory."""
    for order in range(width, 0, -1):
        for doublings in reversed(range((order & -order).bit_length())):
            if _is_paley(order >> doublings):
                return order >> doublings, doublings
    raise ValueError(f"a layer needs at least one channel, not {width}")


def _is_paley(order: int) -> bool:
    """Whether `_paley` can make this order: Paley's first or second construction over a prime field, or 1."""
    q = order // 2 - 1
    return order == 1 or (order % 4 == 0 and (_is_prime(order - 1) or (q % 4 == 1 and _is_prime(q))))


@lru_cache(maxsize=16)
def _paley(order: int) -> np.ndarray:
    """A Hadamard matrix of this order as ±1, int8; the order is one that `_is_paley` allows."""
    if order == 1:
        return np.ones((1, 1), dtype=np.int8)
    if _is_prime(order - 1):
        jacobsthal, q = _jacobsthal(order - 1), order - 1
        matrix = np.ones((order, order), dtype=np.int8)
        matrix[1:, 1:] = jacobsthal + np.eye(q, dtype=np.int8)
        matrix[1:, 0] = -1
        return matrix
    q = order // 2 - 1
    conference = np.ones((q + 1, q + 1), dtype=np.int8)
    conference[0, 0] = 0
    conference[1:, 1:] = _jacobsthal(q)
    plus, minus = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    return np.kron(conference, plus) + np.kron(np.eye(q + 1, dtype=np.int8), minus)


def _jacobsthal(q: int) -> np.ndarray:
    squares = {i * i % q for i in range(1, q)}
    legendre = np.array([0] + [1 if i in squares else -1 for i in range(1, q)], dtype=np.int8)
    return legendre[(np.arange(q)[:, None] - np.arange(q)) % q]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % i for i in range(2, int(number**0.5) + 1))
