"""The networks of the bundled checkpoint, made of the very `ldm` classes that AUTOMATIC1111's WebUI loads it with."""

from copy import deepcopy
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

from .group_norm import speed_up_group_norms
from .photos import resized

SIZE = 192
"""The side of the checkpoint's pictures, in pixels."""

# 64 channels at the full resolution, and not 32: `ldm` normalizes in 32 groups, and a group of one channel forgets its
# mean, which is where the color of a wall would be.
AUTOENCODER = {
    "double_z": True, "z_channels": 4, "resolution": SIZE, "in_channels": 3, "out_ch": 3, "ch": 64,
    "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
# Attention at the two lower levels only: at the top one it costs more time than all that it could be spent on.
RES_BLOCKS = 1
UNET = {
    "image_size": SIZE // 8, "in_channels": 4, "out_channels": 4, "model_channels": 64,
    "attention_resolutions": [2, 4], "num_res_blocks": RES_BLOCKS, "channel_mult": [1, 2, 4], "num_heads": 4,
    "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 128, "use_checkpoint": False,
    "legacy": False,
}  # fmt: skip
VOCABULARY = 49408
TEXT_ENCODER = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 128,
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip


class Autoencoder(nn.Module):
    """KL-f8: float32 pictures [B, 3, H, W] in [-1, 1] <-> latents [B, 4, H/8, W/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(**AUTOENCODER), Decoder(**AUTOENCODER)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
        speed_up_group_norms(self)

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the latents, [B, 4, H/8, W/8] each."""
        mean, logvar = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, logvar.clamp(-20, 10)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The mean of the latents."""
        return self.moments(images)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))

    def load(self, file: Path) -> None:
        self.load_state_dict(load_file(file))


class InnerAutoencoder(nn.Module):
    """An autoencoder without its outermost level, which takes three fifths of the time: pictures of half the size
    [B, 3, h/2, w/2] <-> the latents of the whole ones [B, 4, h/8, w/8]. It trains the weights that it shares."""

    def __init__(self, whole: Autoencoder) -> None:
        super().__init__()
        self.whole = whole
        whole.requires_grad_(True)
        for level in (whole.encoder.down[0], whole.decoder.up[0], whole.decoder.up[1].upsample):
            level.requires_grad_(False)

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoder, h = self.whole.encoder, self.whole.encoder.conv_in(images)
        last = len(encoder.down) - 1
        for i, level in enumerate(encoder.down):
            if i == 0:
                continue
            for block in level.block:
                h = block(h, None)
            if i < last:
                h = level.downsample(h)
        h = encoder.mid.block_2(encoder.mid.attn_1(encoder.mid.block_1(h, None)), None)
        h = encoder.conv_out(nn.functional.silu(encoder.norm_out(h)))
        mean, logvar = self.whole.quant_conv(h).chunk(2, dim=1)
        return mean, logvar.clamp(-20, 10)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        decoder, h = self.whole.decoder, self.whole.post_quant_conv(latents)
        h = decoder.conv_in(h)
        h = decoder.mid.block_2(decoder.mid.attn_1(decoder.mid.block_1(h, None)), None)
        for i in reversed(range(1, len(decoder.up))):
            for block in decoder.up[i].block:
                h = block(h, None)
            if i > 1:
                h = decoder.up[i].upsample(h)
        return decoder.conv_out(nn.functional.silu(decoder.norm_out(h)))

    @torch.no_grad()
    def open(self) -> Autoencoder:
        """The whole autoencoder, its outermost level changing nothing at first but the size."""
        whole = self.whole.requires_grad_(True)
        for level in (whole.encoder.down[0], whole.decoder.up[0]):
            for block in level.block:
                block.conv2.weight.zero_()
                block.conv2.bias.zero_()
        down, up = whole.encoder.down[0].downsample.conv, whole.decoder.up[1].upsample.conv
        for convolution, kernel in ((down, torch.full((2, 2), 0.25)), (up, torch.ones(1, 1))):
            convolution.weight.zero_()
            convolution.bias.zero_()
            first = 0 if convolution is down else 1
            part = slice(first, first + len(kernel))
            for channel in range(len(convolution.weight)):
                convolution.weight[channel, channel, part, part] = kernel
        return whole


class OpenedAutoencoder(nn.Module):
    """The whole autoencoder with the latents of the inner one, which stay as they are.

    The decoder learns pictures of twice the size, from latents of the inner encoder, which costs little; the outermost
    level of the encoder learns to hand on what a picture of half the size would be. So a UNet can be trained on the
    inner encoder's latents meanwhile.
    """

    def __init__(self, inner: InnerAutoencoder) -> None:
        super().__init__()
        self.inner = deepcopy(inner).requires_grad_(False)
        self.whole = inner.open()
        self.whole.quant_conv.requires_grad_(False)
        self.whole.encoder.requires_grad_(False)
        for level in (self.whole.encoder.conv_in, self.whole.encoder.down[0]):
            level.requires_grad_(True)

    def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the inner encoder, of float32 pictures [B, 3, H, W] in [-1, 1]."""
        with torch.no_grad():
            return self.inner.moments(resized(images, images.shape[-1] // 2))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.whole.decode(latents)

    def encoder_error(self, images: torch.Tensor) -> torch.Tensor:
        """How far the whole encoder's latents are from the inner one's: the share of their variance."""
        wanted = self.moments(images)[0]
        return nn.functional.mse_loss(self.whole.encode(images), wanted) / wanted.var()


def new_unet() -> UNetModel:
    """The UNet, untrained: its output convolution is zero, so it predicts no noise at first."""
    unet = UNetModel(**UNET)
    for module in unet.modules():
        if isinstance(module, CrossAttention):
            module.forward = partial(_attention, module)
    speed_up_group_norms(unet)
    return unet


def _attention(module: CrossAttention, x: torch.Tensor, context: torch.Tensor | None = None, **_) -> torch.Tensor:
    """The same attention as `ldm`'s, by torch's fused kernel; in half precision on a processor, whose fused kernel is
    slow backward, by products of matrices."""
    context = x if context is None else context
    projected = (module.to_q(x), module.to_k(context), module.to_v(context))
    q, k, v = (rearrange(tokens, "b n (h d) -> b h n d", h=module.heads) for tokens in projected)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        attended = scores.softmax(-1).to(v.dtype) @ v
    else:
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
    return module.to_out(rearrange(attended, "b h n d -> b n (h d)"))


def new_text_encoder() -> CLIPTextModel:
    """CLIP's text transformer with CLIP's vocabulary, small and untrained."""
    return CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER, attn_implementation="eager"))
