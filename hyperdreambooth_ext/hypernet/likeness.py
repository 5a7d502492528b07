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


def in_words(cosine: float) -> str:
    """What a likeness means. Of two photos of one person 95 % are above 0.77, of two people 99 % below 0.62 (the 100
    people of `benchmarks/people`; tests/fast/test_likeness.py measures it)."""
    if cosine >= 0.77:
        return "The picture shows this person: as alike as two photos of one person are."
    if cosine >= 0.62:
        return "Very alike: hardly any two different people look this much like each other."
    if cosine >= 0.5:
        return "Some likeness: a little more alike than most strangers."
    return "Little likeness yet: no more alike than strangers. Try the quality Best, or another photo."
