"""A stored basis, as the files of version 0.1 hold it: nothing in the product makes one any more."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from hyperdreambooth_ext.hypernet.file import save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.safetensors_bytes import from_file, to_bytes
from hyperdreambooth_ext.lidb.stored_basis import A_PREFIX, B_PREFIX, METADATA, StoredBasis, digest


def stored_basis(
    kind: str, a_aux: Mapping[str, torch.Tensor], b_aux: Mapping[str, torch.Tensor]
) -> StoredBasis:  # fmt: skip
    """A basis of these matrices, rounded to float16 as every file holds them."""
    a_aux = {key: value.half().float() for key, value in a_aux.items()}
    b_aux = {key: value.half().float() for key, value in b_aux.items()}
    a, b = max(v.shape[1] for v in a_aux.values()), max(v.shape[0] for v in b_aux.values())
    return StoredBasis(kind, a, b, digest(a_aux, b_aux), a_aux, b_aux)


def save_with_basis(path: Path, network: Hypernetwork) -> None:
    """Write a hypernetwork that speaks in a stored basis, as version 0.1 did: the basis is in its file."""
    save_hypernetwork(path, network)
    tensors, metadata = from_file(path, 100_000_000)
    basis = network.config.basis
    tensors |= {A_PREFIX + key: value.half() for key, value in basis.a_aux.items()}
    tensors |= {B_PREFIX + key: value.half() for key, value in basis.b_aux.items()}
    path.write_bytes(to_bytes(tensors, metadata | {METADATA: json.dumps(basis.to_dict(), sort_keys=True)}))
