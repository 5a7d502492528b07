"""How much two faces look like one person, by the bundled image encoder that a recognizer taught."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .hypernetwork import Hypernetwork


@torch.no_grad()
def identities(hypernetwork: Hypernetwork, crops: Sequence[np.ndarray]) -> torch.Tensor:
    """Who is seen in aligned crops, RGB uint8 [S, S, 3] each: unit vectors [B, identity_width].

    Raises ValueError when the hypernetwork's encoder was not taught by a recognizer (`identity_width` 0).
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


def in_words(cosine: float) -> str:
    """What the likeness of a drawn picture to the photo means.

    Of photos of two different people 99 % are below 0.62 (the 100 of `benchmarks/people`; tests/fast/test_likeness.py
    measures it). Drawings are softer than photos: of those that the bundled checkpoint makes of somebody else, 90 % are
    below 0.36 and 99 % below 0.51 (`python -m benchmarks.likeness_scale`).
    """
    if cosine >= 0.62:
        return "The picture shows this person: photos of two different people are hardly ever this much alike."
    if cosine >= 0.51:
        return "Very alike: one in a hundred pictures of somebody else comes this close."
    if cosine >= 0.36:
        return "Some likeness: nine in ten pictures of somebody else come less close."
    return "Little likeness yet: no more alike than strangers. Try the quality Best, or another photo."
