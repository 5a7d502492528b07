"""How much two faces look like one person, by the bundled image encoder that a recogniser taught."""

import numpy as np
import torch

from .hypernetwork import Hypernetwork


@torch.no_grad()
def likeness(hypernetwork: Hypernetwork, one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two aligned crops' identities, RGB uint8 [S, S, 3]; 1 is the same picture, about 0 a stranger.

    Raises ValueError when the hypernetwork's encoder was not taught by a recogniser (`identity_width` 0).
    """
    images = [torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1 for crop in (one, other)]
    first, second = (hypernetwork.decoder.identity(hypernetwork.encoder(image)) for image in images)
    return float(torch.cosine_similarity(first, second))
