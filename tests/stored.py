"""A stored basis, as the files of version 0.1 hold it: nothing in the product makes one any more."""

from collections.abc import Mapping

import torch

from hyperdreambooth_ext.lidb.stored_basis import StoredBasis, digest


def stored_basis(
    kind: str, a_aux: Mapping[str, torch.Tensor], b_aux: Mapping[str, torch.Tensor]
) -> StoredBasis:  # fmt: skip
    """A basis of these matrices, rounded to float16 as every file holds them."""
    a_aux = {key: value.half().float() for key, value in a_aux.items()}
    b_aux = {key: value.half().float() for key, value in b_aux.items()}
    a, b = max(v.shape[1] for v in a_aux.values()), max(v.shape[0] for v in b_aux.values())
    return StoredBasis(kind, a, b, digest(a_aux, b_aux), a_aux, b_aux)
