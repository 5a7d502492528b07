"""A recogniser that looks at pictures: latents are decoded, cut as SFace wants them, and named by SFace itself.

What a reader of latents cannot see it does not ask for; SFace sees more, and costs about as much as a step of the UNet
with its gradients. Tried, with the result that docs/training.md tells; no measurement uses SFace.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from .models import Autoencoder
from .sface import load_sface

# SFace's square of 112 pixels within our crops, in its own pixels: a crop is 120 of them wide. Shrunk as a whole, our
# crops would show it faces that are too small and too high.
SIDE, CROP, LEFT, TOP = 112, 120.0, -4.0, 3.8


class _Normalised(torch.autograd.Function):
    """Group normalisation whose gradient, for the input alone, is a few vector operations: torch's own takes three
    quarters of a decoder's backward pass on the CPU."""

    @staticmethod
    def forward(ctx, hidden_states, weight, bias, groups, eps):
        count, channels = hidden_states.shape[:2]
        places = hidden_states[0, 0].numel()
        output, mean, scale = torch.native_group_norm(
            hidden_states, weight, bias, count, channels, places, groups, eps
        )  # fmt: skip
        ctx.save_for_backward(hidden_states, mean[..., None], scale[..., None], weight)
        return output

    @staticmethod
    def backward(ctx, gradient):
        hidden_states, mean, scale, weight = ctx.saved_tensors
        grouped = (len(hidden_states), mean.shape[1], -1)
        weighed = (gradient * weight.view(1, -1, 1, 1)).reshape(grouped)
        normal = (hidden_states.reshape(grouped) - mean) * scale
        along = normal * (weighed * normal).mean(-1, keepdim=True)
        result = (weighed - weighed.mean(-1, keepdim=True) - along) * scale
        return result.view(hidden_states.shape), None, None, None, None


class _GroupNorm(nn.GroupNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return _Normalised.apply(input.contiguous(), self.weight, self.bias, self.num_groups, self.eps)


class PictureJudge(nn.Module):
    """Latents of unit variance [B, 4, h, w] -> SFace's unit vectors [B, 128] of the pictures; frozen."""

    def __init__(self, autoencoder: Path, scale: Path, sface: Path) -> None:
        super().__init__()
        self.autoencoder, self.network = Autoencoder(), load_sface(sface)
        self.autoencoder.load(autoencoder)
        del self.autoencoder.encoder, self.autoencoder.quant_conv
        for module in self.autoencoder.modules():
            if type(module) is nn.GroupNorm:
                module.__class__ = _GroupNorm
        for name, value in load_file(scale).items():
            self.register_buffer(f"latent_{name}", value.view(1, 4, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            pictures = self.autoencoder.decode(latents.float() * self.latent_scale + self.latent_shift)
            return F.normalize(self.network((cut(pictures) + 1) * 127.5), dim=-1)


def cut(pictures: torch.Tensor) -> torch.Tensor:
    """Aligned crops [B, 3, H, W] -> [B, 3, 112, 112] as SFace was trained on."""
    centres = torch.arange(SIDE, device=pictures.device) + 0.5
    across, down = 2 * (centres - LEFT) / CROP - 1, 2 * (centres - TOP) / CROP - 1
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    grid = grid.expand(len(pictures), -1, -1, -1)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
