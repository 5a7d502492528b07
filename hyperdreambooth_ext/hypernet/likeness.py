"""How much two faces look like one person, by the bundled image encoder, which a recognizer trained."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .hypernetwork import Hypernetwork


@torch.no_grad()
def identities(hypernetwork: Hypernetwork, crops: Sequence[np.ndarray]) -> torch.Tensor:
    """The identities of aligned crops, RGB uint8 [S, S, 3] each: unit vectors [B, identity_width].

    Raises ValueError when no recognizer trained the hypernetwork's encoder (`identity_width` 0).
    """
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
    return identities_of_images(hypernetwork, images)


@torch.no_grad()
def identities_of_images(hypernetwork: Hypernetwork, images: torch.Tensor) -> torch.Tensor:
    """The same of aligned faces, float32 [B, 3, S, S] in [-1, 1]."""
    return F.normalize(hypernetwork.decoder.identity(hypernetwork.encoder(images)), dim=-1)


def likeness(hypernetwork: Hypernetwork, one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two aligned crops' `identities`; 1 is the same picture. The two may differ in size."""
    first, second = (identities(hypernetwork, [crop])[0] for crop in (one, other))
    return float(first @ second)
