"""Faces as numbers: the hypernetwork's frozen image encoder, and the bundled recognizer that tells identities apart."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from ..images.face import FRAMINGS
from ..images.tensors import to_tensor
from ..lidb.layers import Architecture
from ..shipped import HYPERNETWORK
from .config import HypernetworkConfig
from .encoder import FaceEncoder
from .file import load_hypernetwork
from .hypernetwork import Hypernetwork


class FaceEmbedder:
    """The encoder that the new hypernetwork will carry, and the bundled one for identities. All on `device`."""

    def __init__(self, encoder: str = "", device: torch.device | str = "cpu") -> None:
        """`encoder` "" is the bundled one, otherwise timm's or open_clip's name as in HypernetworkConfig.

        Raises UserError when it cannot be made.
        """
        self.device = torch.device(device)
        # The bundled hypernetwork's encoder was trained by a face recognizer, and it is there without any download.
        self._bundled = bundled = load_hypernetwork(HYPERNETWORK).to(self.device)
        self.bundled = not encoder
        # What the bundled encoder was shown is what it can tell apart.
        self.framing = FRAMINGS[bundled.config.framing]
        if self.bundled:
            kept = ("encoder", "framing", "image_size", "image_mean", "image_std", "identity_width")
            self.settings = {name: getattr(bundled.config, name) for name in kept}
            self.encoder = bundled.encoder
        else:
            size = 224 if "vit" in encoder.lower() else 128
            self.settings = {"encoder": encoder, "encoder_bundled": False, "image_size": size}
            self.settings["framing"] = bundled.config.framing
            config = replace(HypernetworkConfig(Architecture(())), **self.settings)  # type: ignore[arg-type]
            self.encoder = FaceEncoder(config, pretrained=True).to(self.device).eval().requires_grad_(False)

    @cached_property
    def identity_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What turns the bundled encoder's features into an identity: weight and bias."""
        return self._bundled.decoder.identity_weight, self._bundled.decoder.identity_bias

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Aligned faces [B, 3, H, W] in [-1, 1] -> what the decoder is given, float32 [B, tokens, channels]."""
        return self.encoder(images.to(self.device)).float()

    def identities(self, images: torch.Tensor) -> torch.Tensor:
        """Aligned faces [B, 3, H, W] in [-1, 1] -> identities, unit vectors [B, 128]."""
        return self._bundled.identities(images.to(self.device))


def likeness(hypernetwork: Hypernetwork, one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two aligned crops' identities; 1 is the same picture. The two may differ in size."""
    first, second = (hypernetwork.identities(to_tensor([crop]))[0] for crop in (one, other))
    return float(first @ second)
