"""The embedded checkpoint's three networks, made of the same classes that Stable Diffusion 1 is made of.

`ldm` comes with the package stable-diffusion-sdkit; the state dict is in SD1 layout without any conversion.
"""

from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from ldm.modules.attention import CrossAttention
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

AUTOENCODER = {
    "double_z": True, "z_channels": 4, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 2, 4], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
UNET = {
    "image_size": 16, "in_channels": 4, "out_channels": 4, "model_channels": 64, "attention_resolutions": [1, 2, 4],
    "num_res_blocks": 2, "channel_mult": [1, 2, 2], "num_heads": 4, "use_spatial_transformer": True,
    "transformer_depth": 1, "context_dim": 64, "use_checkpoint": False, "legacy": False,
}  # fmt: skip
TEXT_ENCODER = {
    "vocab_size": 49408, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 64,
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip


class Autoencoder(nn.Module):
    """KL-f8: float32 pictures [B, 3, H, W] in [-1, 1] <-> latents [B, 4, H/8, W/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(**AUTOENCODER), Decoder(**AUTOENCODER)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures through a sampled latent, and the latent's mean and log variance."""
        mean, logvar = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        logvar = logvar.clamp(-20, 10)
        latents = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        return self.decode(latents), mean, logvar

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the latents."""
        return self.quant_conv(self.encoder(images)).chunk(2, dim=1)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))

    def load(self, file: Path) -> None:
        self.load_state_dict(load_file(file))


def new_unet() -> UNetModel:
    """The UNet, untrained: its output convolution is zero, so it predicts no noise at first."""
    unet = UNetModel(**UNET)
    for module in unet.modules():
        if isinstance(module, CrossAttention):
            module.forward = partial(_attention, module)
    return unet


def _attention(module: CrossAttention, x: torch.Tensor, context: torch.Tensor | None = None, **_) -> torch.Tensor:
    """The same attention as `ldm`'s, in the precision of its inputs: on the CPU `ldm`'s own is half as fast."""
    context = x if context is None else context
    projected = (module.to_q(x) * module.scale, module.to_k(context), module.to_v(context))
    q, k, v = (rearrange(tokens, "b n (h d) -> (b h) n d", h=module.heads) for tokens in projected)
    with torch.autocast("cpu", enabled=False):
        attended = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)
    return module.to_out(rearrange(attended, "(b h) n d -> b n (h d)", h=module.heads))


def new_text_encoder() -> CLIPTextModel:
    """CLIP's text transformer with CLIP's vocabulary, small and untrained."""
    return CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))
