"""Bases that were made rather than sampled, each layer with its own: read here for the files of 0.1 that use one.

Nothing makes them any more (experiments/README.md). They are far larger than a LiDB (60 MB for SD 1.5), so they lie in
the hypernetwork's file, and a LiDB names its basis by hash. Numbers are float16 in every file.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from ..errors import FileError
from .layers import MAX_ROWS, Layer
from .safetensors_bytes import from_file, metadata_of

ALGORITHM = "stored-v1"
A_PREFIX, B_PREFIX = "basis_a.", "basis_b."
METADATA = "lidb_basis"
_MAX_BYTES = 4_000_000_000


@dataclass(frozen=True)
class StoredBasis:
    """`kind` says how it was made, `sha256` (64 digits) which it is. a_aux: layer key -> float32 [out, a]; b_aux: layer
    key -> float32 [b, in]; both are empty where a file only names it."""

    kind: str
    a: int
    b: int
    sha256: str
    a_aux: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)
    b_aux: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    def sizes_of(self, layer: Layer) -> tuple[int, int]:
        """How many directions the layer has on either side, (a, b)."""
        return min(self.a, layer.out_features), min(self.b, layer.in_features)

    def a_of(self, layer: Layer) -> torch.Tensor:
        """A_aux float32 [out, a] of the layer. Raises KeyError where it is only named: see `find_basis`."""
        return self.a_aux[layer.key]

    def b_of(self, layer: Layer) -> torch.Tensor:
        """B_aux float32 [b, in] of the layer. Raises KeyError where it is only named."""
        return self.b_aux[layer.key]

    def to_dict(self) -> dict:
        return {"algorithm": ALGORITHM, "kind": self.kind, "a": self.a, "b": self.b, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, values: dict) -> "StoredBasis":
        """The inverse of `to_dict`, for what a stranger wrote. Raises ValueError, KeyError or TypeError."""
        kind, a, b, sha256 = (values[name] for name in ("kind", "a", "b", "sha256"))
        if type(a) is not int or type(b) is not int or not (0 < a <= MAX_ROWS and 0 < b <= MAX_ROWS):
            raise ValueError("its basis has no possible size")
        if type(kind) is not str or not re.fullmatch(r"[a-z]{1,20}", kind):
            raise ValueError("its basis is of no possible kind")
        if type(sha256) is not str or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError("its basis has no name")
        return cls(kind, a, b, sha256)

    def to(self, device: torch.device) -> "StoredBasis":
        """The same basis with its numbers on `device`."""
        sides = [{key: value.to(device) for key, value in side.items()} for side in (self.a_aux, self.b_aux)]
        return StoredBasis(self.kind, self.a, self.b, self.sha256, *sides)


def digest(a_aux: Mapping[str, torch.Tensor], b_aux: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the layers' keys, shapes and float16 numbers, hexadecimal."""
    total = hashlib.sha256()
    for key in sorted(a_aux):
        for value in (a_aux[key], b_aux[key]):
            total.update(f"{key} {list(value.shape)}\n".encode())
            total.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return total.hexdigest()


def of_basis(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of a hypernetwork's tensors that are its basis."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith((A_PREFIX, B_PREFIX))}


def checked_basis(named: StoredBasis, tensors: Mapping[str, torch.Tensor], layers: Iterable[Layer]) -> StoredBasis:
    """The basis out of a file's tensors: all those of its layers and no others.

    Raises ValueError unless they are there, float16, finite, and what the name says.
    """
    layers = tuple(layers)
    shapes: dict[str, list[int]] = {}
    for layer in layers:
        a, b = named.sizes_of(layer)
        shapes |= {A_PREFIX + layer.key: [layer.out_features, a], B_PREFIX + layer.key: [b, layer.in_features]}
    if {name: list(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ValueError("its basis has other shapes, or is that of other layers")
    if any(tensor.dtype != torch.float16 for tensor in tensors.values()):
        raise ValueError("its basis is not in float16")
    a_aux = {layer.key: tensors[A_PREFIX + layer.key] for layer in layers}
    b_aux = {layer.key: tensors[B_PREFIX + layer.key] for layer in layers}
    if not all(torch.isfinite(value).all() for side in (a_aux, b_aux) for value in side.values()):
        raise ValueError("its basis holds numbers that are none")
    if digest(a_aux, b_aux) != named.sha256:
        raise ValueError("its basis is not the one that it names")
    as_floats = [{key: value.float() for key, value in side.items()} for side in (a_aux, b_aux)]
    return StoredBasis(named.kind, named.a, named.b, named.sha256, *as_floats)


def find_basis(named: StoredBasis, layers: Iterable[Layer], folders: Iterable[Path]) -> StoredBasis:
    """The basis of that name out of the hypernetworks in `folders`.

    Raises FileError when none of them has it, ValueError when it does not fit the layers.
    """
    for folder in folders:
        for path in sorted(Path(folder).glob("*.safetensors")):
            if _basis_named_in(path) == named.sha256:
                return _read(path, path.stat().st_mtime_ns, named, tuple(layers))
    lacking = f"It uses the {named.kind} basis {named.sha256[:10]} of a hypernetwork that is not here"
    raise FileError(f"{lacking}: put that file beside the other hypernetworks.")


def _basis_named_in(path: Path) -> str:
    try:
        return str(json.loads(metadata_of(path, _MAX_BYTES).get(METADATA, "{}")).get("sha256", ""))
    except (FileError, ValueError, AttributeError, RecursionError):
        # Another program's file in the same folder.
        return ""


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int, named: StoredBasis, layers: tuple[Layer, ...]) -> StoredBasis:
    # Cached: one that was read while somebody samples in inference mode could not be trained with afterwards.
    with torch.inference_mode(False):
        tensors, _ = from_file(path, _MAX_BYTES)
        return checked_basis(named, of_basis(tensors), layers)
