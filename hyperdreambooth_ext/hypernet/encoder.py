"""The image encoder: a face crop becomes a few feature tokens, computed once per photo."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..errors import UserError
from .config import HypernetworkConfig

OPEN_CLIP = "open_clip:"
_TIMM_NAME = re.compile(r"[a-z0-9_]{1,100}(\.[a-z0-9_]{1,100})?")
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class FaceEncoder(nn.Module):
    """A timm or open_clip backbone without its head: pictures [B, 3, H, W] in [-1, 1] -> tokens [B, N, channels]."""

    def __init__(self, config: HypernetworkConfig, pretrained: bool) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.register_buffer("mean", torch.tensor(config.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.image_std).view(1, 3, 1, 1), persistent=False)
        self.backbone = backbone(config.encoder, pretrained)
        try:
            with torch.no_grad():
                self.channels = self.eval()(torch.zeros(1, 3, self.image_size, self.image_size)).shape[-1]
        except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError, IndexError) as error:
            unfit = f"The image encoder {config.encoder} takes no pictures of {self.image_size} pixels"
            raise UserError(f"{unfit}: choose another.") from error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] != self.image_size:
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bicubic", antialias=True)
        features = self.backbone.forward_features(((images + 1) / 2 - self.mean) / self.std)
        # Convolutional networks give a map, transformers a sequence.
        return rearrange(features, "b c h w -> b (h w) c") if features.ndim == 4 else features


class _OpenClipBackbone(nn.Module):
    def __init__(self, architecture: str, weights: str, pretrained: bool, device: str) -> None:
        super().__init__()
        import open_clip

        if architecture not in open_clip.list_models():
            raise ValueError("open_clip has no architecture of this name")
        if weights and weights not in open_clip.list_pretrained_tags_by_model(architecture):
            raise ValueError("open_clip has no weights of this name")
        wanted = weights if pretrained else None
        self.visual = open_clip.create_model(architecture, pretrained=wanted, device=device).visual
        self.visual.output_tokens = True

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)[1]


def backbone(name: str, pretrained: bool, device: str = "cpu") -> nn.Module:
    """The network of that name, as the libraries themselves list it; `pretrained` has them fetch its weights.

    Raises UserError for any other name: it may come out of a stranger's file, and both libraries would follow it to a
    folder of this machine or to anybody's repository.
    """
    try:
        with _nothing_unpickled() if pretrained else nullcontext():
            if name.startswith(OPEN_CLIP):
                architecture, _, weights = name.removeprefix(OPEN_CLIP).partition("/")
                return _OpenClipBackbone(architecture, weights, pretrained, device)
            import timm

            if not _TIMM_NAME.fullmatch(name) or not timm.is_model(name):
                raise ValueError("timm has no model of this name")
            return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The image encoder {name!r} needs the package {error.name}: install it with pip, then restart."
        ) from error
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise UserError(f"The image encoder {name!r} cannot be made ({error}): check name and connection.") from error


@contextmanager
def _nothing_unpickled() -> Iterator[None]:
    """Some of the libraries' own weights are old pickles: within this context torch reads their tensors alone."""
    kept = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if kept is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = kept
