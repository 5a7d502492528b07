"""Export to an ordinary LoRA with kohya's keys, for everybody who does not have this extension."""

from pathlib import Path

import torch

from ..files import write_atomically
from .file import Info
from .safetensors_bytes import to_bytes
from .weights import LiDB


def lora_tensors(lidb: LiDB, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """`<key>.lora_up.weight`, `<key>.lora_down.weight` and `<key>.alpha` for each layer.

    alpha is the rank, so the LoRA's scale alpha / rank is 1.
    """
    tensors = {}
    for layer in lidb.architecture.layers:
        up, down = lidb.factors(layer)
        # float16 loses small numbers: let both sides have the same length.
        balance = (down.norm(dim=1) / up.norm(dim=0).clamp_min(1e-12)).sqrt().clamp_min(1e-12)
        tensors[f"{layer.key}.lora_up.weight"] = (up * balance).to(dtype)
        tensors[f"{layer.key}.lora_down.weight"] = (down / balance[:, None]).to(dtype)
        tensors[f"{layer.key}.alpha"] = torch.tensor(float(lidb.rank), dtype=dtype)
    return tensors


def export_lora(path: Path, lidb: LiDB, info: Info) -> None:
    """Write the LoRA atomically. Raises FileError when it cannot be written."""
    metadata = {
        "ss_output_name": info.name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lidb.rank),
        "ss_network_alpha": str(float(lidb.rank)),
        "ss_sd_model_name": info.checkpoint,
        "ss_v2": "False",
        "modelspec.title": info.name,
        "modelspec.trigger_phrase": info.trigger,
        "modelspec.architecture": "stable-diffusion-v1/lora",
    }
    write_atomically(Path(path), to_bytes(lora_tensors(lidb), metadata))
