"""Export to an ordinary LoRA with kohya's keys, for everybody who does not have this extension."""

from pathlib import Path

import torch

from ..files import write_atomically
from .file import Info, host_metadata
from .safetensors_bytes import to_bytes
from .weights import LiDB


def lora_tensors(lidb: LiDB, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """`<key>.lora_up.weight`, `<key>.lora_down.weight` and `<key>.alpha` for each layer.

    alpha is the rank, so the LoRA's scale alpha / rank is 1.
    """
    tensors = {}
    for key, (up, down) in lidb.all_factors(lidb.architecture.layers).items():
        up, down = up.float(), down.float()
        # float16 loses small numbers: let both sides have the same length.
        balance = (down.norm(dim=1) / up.norm(dim=1).clamp_min(1e-12)).sqrt().clamp_min(1e-12)[:, None]
        tensors[f"{key}.lora_up.weight"] = (up * balance).mT.to(dtype).contiguous()
        tensors[f"{key}.lora_down.weight"] = (down / balance).to(dtype)
        tensors[f"{key}.alpha"] = torch.tensor(float(lidb.rank), dtype=dtype)
    return tensors


def export_lora(path: Path, lidb: LiDB, info: Info, overwrite: bool = True) -> None:
    """Write the LoRA atomically. Raises FileError when it cannot be written, or is there and may not be replaced."""
    metadata = {
        # The WebUI takes it for a second name of the file, which must be no other file's.
        "ss_output_name": Path(path).stem,
        "ss_network_module": "networks.lora",
        "ss_network_alpha": str(float(lidb.rank)),
        **host_metadata(info, lidb.rank, "lora"),
    }
    write_atomically(Path(path), to_bytes(lora_tensors(lidb), metadata), overwrite=overwrite)
