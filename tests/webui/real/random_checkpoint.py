"""Checkpoints of full size with random weights: Forge and its kin load no smaller ones."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX

_BIG_TEXT = {"width": 1280, "heads": 20, "layers": 32, "vocab_size": 49408, "context_length": 77}


def random_sd15(path: Path) -> None:
    """SD 1.5's shapes in half precision, 2.1 GB."""
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    params = _params("sd15.yaml")
    with torch.device("meta"):
        parts = {
            UNET_PREFIX: UNetModel(**params["unet_config"]["params"]),
            VAE_PREFIX: AutoencoderKL(**params["first_stage_config"]["params"]),
            TEXT_PREFIX: CLIPTextModel(CLIPTextConfig(**_clip())),
        }
    _save(path, {prefix + key: value for prefix, part in parts.items() for key, value in part.state_dict().items()})


def random_sdxl(path: Path) -> None:
    """SDXL's shapes in half precision, 6.9 GB."""
    from tests.sdxl import SgmModel

    with torch.device("meta"):
        model = SgmModel(_params("sdxl.yaml"), _clip(), _BIG_TEXT)
    _save(path, model.state_dict())


def _params(config: str) -> dict:
    return yaml.safe_load((CONFIGS / config).read_text(encoding="utf-8"))["model"]["params"]


def _clip() -> dict:
    return json.loads((CONFIGS / "clip_l.json").read_text(encoding="utf-8"))


def _save(path: Path, shapes: Mapping[str, torch.Tensor]) -> None:
    """One table of random numbers fills all of it in seconds."""
    table = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for key, value in shapes.items():
        if ".loss." in key or key.endswith(("position_ids", "attn_mask")):
            continue
        filled = table.repeat(value.numel() // len(table) + 1)[: value.numel()].view(value.shape)
        spread = value[0].numel() ** -0.5 if value.ndim > 1 else 0.02
        tensors[key] = (filled * spread + (value.ndim == 1 and key.endswith("weight"))).half()
    save_file(tensors, path)
