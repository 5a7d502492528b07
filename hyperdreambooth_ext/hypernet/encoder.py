"""The image encoder: a face crop becomes a few feature tokens, computed once per photo."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..errors import UserError
from .config import HypernetworkConfig

OPEN_CLIP = "open_clip:"


class FaceEncoder(nn.Module):
    """A timm or open_clip backbone without its head: pictures [B, 3, H, W] in [-1, 1] -> tokens [B, N, channels]."""

    def __init__(self, config: HypernetworkConfig, pretrained: bool) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.register_buffer("mean", torch.tensor(config.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.image_std).view(1, 3, 1, 1), persistent=False)
        self.backbone = _backbone(config.encoder, pretrained)
        with torch.no_grad():
            self.channels = self.eval()(torch.zeros(1, 3, self.image_size, self.image_size)).shape[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] != self.image_size:
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bicubic", antialias=True)
        features = self.backbone.forward_features(((images + 1) / 2 - self.mean) / self.std)
        # Convolutional networks give a map, transformers a sequence.
        return rearrange(features, "b c h w -> b (h w) c") if features.ndim == 4 else features


class _OpenClipBackbone(nn.Module):
    def __init__(self, architecture: str, weights: str | None) -> None:
        super().__init__()
        import open_clip

        self.visual = open_clip.create_model(architecture, pretrained=weights).visual
        self.visual.output_tokens = True

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)[1]


def _backbone(name: str, pretrained: bool) -> nn.Module:
    try:
        if name.startswith(OPEN_CLIP):
            architecture, _, weights = name.removeprefix(OPEN_CLIP).partition("/")
            return _OpenClipBackbone(architecture, weights if pretrained else None)
        import timm

        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"The image encoder {name} cannot be made ({error}): check the connection or its name."
        ) from error
