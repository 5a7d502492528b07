"""Export to an ordinary LoRA with kohya's keys, for everybody who does not have this extension."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from ..files import write_atomically
from .basis import Basis
from .file import Info, family_metadata
from .safetensors_bytes import to_bytes
from .weights import LiDB


def lora_tensors(lidb: LiDB, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """`<key>.lora_up.weight`, `<key>.lora_down.weight` and `<key>.alpha` for each layer.

    alpha is the rank, so the LoRA's scale alpha / rank is 1.
    """
    ups, downs = _sides(lidb)
    tensors = {}
    for key, up in ups.items():
        down = downs[key]
        # float16 loses small numbers: let both sides have the same length.
        balance = (down.norm(dim=1) / up.norm(dim=1).clamp_min(1e-12)).sqrt().clamp_min(1e-12)[:, None]
        tensors[f"{key}.lora_up.weight"] = (up * balance).mT.to(dtype).contiguous()
        tensors[f"{key}.lora_down.weight"] = (down / balance).to(dtype)
        tensors[f"{key}.alpha"] = torch.tensor(float(lidb.rank), dtype=dtype)
    return tensors


def _sides(lidb: LiDB) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """layer key -> up transposed [rank, out], and layer key -> down [rank, in]."""
    layers, basis = lidb.architecture.layers, lidb.basis
    if not isinstance(basis, Basis):
        factors = {layer.key: lidb.factors(layer) for layer in layers}
        return {key: up.mT.float() for key, (up, _) in factors.items()}, {
            key: down.float() for key, (_, down) in factors.items()
        }
    ups = _projected(lidb, basis, {layer.key: layer.out_features for layer in layers}, lidb.a_train, "a")
    return ups, _projected(lidb, basis, {layer.key: layer.in_features for layer in layers}, lidb.b_train, "b")


def _projected(
    lidb: LiDB, drawn: Basis, widths: Mapping[str, int], trained: Mapping[str, torch.Tensor], side: Literal["a", "b"]
) -> dict[str, torch.Tensor]:
    """layer key -> [rank, width]: one product for all layers of one width, for loading must not be felt."""
    projected: dict[str, torch.Tensor] = {}
    for width in sorted(set(widths.values())):
        keys = [key for key in widths if widths[key] == width]
        rows = torch.cat([trained[key].mT if side == "a" else trained[key] for key in keys]).float()
        basis = drawn.a_aux(width).T if side == "a" else drawn.b_aux(width)
        projected |= zip(keys, (rows @ basis.to(rows.device)).split(lidb.rank), strict=True)
    return {key: projected[key] for key in widths}


def export_lora(path: Path, lidb: LiDB, info: Info) -> None:
    """Write the LoRA atomically. Raises FileError when it cannot be written."""
    metadata = {
        # The WebUI takes it for a second name of the file, which must be no other file's.
        "ss_output_name": Path(path).stem,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lidb.rank),
        "ss_network_alpha": str(float(lidb.rank)),
        "ss_sd_model_name": info.checkpoint,
        "modelspec.title": info.name,
        "modelspec.trigger_phrase": info.trigger,
        **family_metadata(info.model_family, "lora"),
    }
    write_atomically(Path(path), to_bytes(lora_tensors(lidb), metadata))
