"""SD 1.5's shapes with random weights: time and memory do not depend on what the numbers are."""

import json
from functools import cache

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, ddpm_alphas_cumprod
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.naming import kohya_linears
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB, zeros

SPREAD = 0.02


class RandomHost(DiffusersHost):
    """A host of SD 1.5's three networks that no file is needed for."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 512) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.checkpoint_name, self.checkpoint_hash, self.prediction_type = "random", "0" * 10, "epsilon"
        self.scale_factor, self.default_size = 0.18215, size
        self.alphas_cumprod = ddpm_alphas_cumprod(0.00085, 0.012, 1000).to(self.device)
        unet, text_encoder, vae = sd15_modules()
        self.unet = _filled(unet, self.device, dtype)
        self.text_encoder = _filled(text_encoder, self.device, dtype)
        self.vae = _filled(vae, self.device, torch.float32)
        self._prepare_tokens()


def sd15_modules() -> tuple[nn.Module, nn.Module, nn.Module]:
    """UNet, text encoder and autoencoder of SD 1.5 on the meta device: shapes alone."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
        text_encoder = CLIPTextModel(CLIPTextConfig(**json.loads((CONFIGS / "clip_l.json").read_text())))
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        )  # fmt: skip
    return unet, text_encoder, vae  # type: ignore[return-value]  # diffusers' mixins hide their base


@cache
def sd15_architecture() -> Architecture:
    """The 192 layers of a LiDB for SD 1.5."""
    unet, text_encoder, _ = sd15_modules()
    return Architecture.of(kohya_linears(unet, text_encoder))


def random_lidb(architecture: Architecture, rank: int, seed: int = 0) -> LiDB:
    """A LiDB that changes something in every layer."""
    generator = torch.Generator().manual_seed(seed)
    lidb = zeros(architecture, Basis(), rank, generator)
    a_train = {key: torch.randn(a.shape, generator=generator) * 0.1 for key, a in lidb.a_train.items()}
    return LiDB(architecture, lidb.basis, a_train, lidb.b_train)


@torch.no_grad()
def _filled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """`module` with weights: repeats of a few thousand random numbers, which are made in no time; norms scale by 1."""
    few = torch.randn(65521, generator=torch.Generator().manual_seed(0)) * SPREAD
    module = module.to_empty(device=device).to(dtype)
    for name, parameter in module.named_parameters():
        repeats = -(-parameter.numel() // len(few))
        values = few.repeat(repeats)[: parameter.numel()].view(parameter.shape)
        parameter.copy_(torch.ones_like(parameter) if "norm" in name and name.endswith("weight") else values)
    for name, buffer in module.named_buffers():
        buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape) if name.endswith("position_ids") else buffer)
    return module.eval()
