"""What the hypernetwork is trained on: pairs of two pictures of one person, out of the caches."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hyperdreambooth_ext.hypernet.training import Batch

from .captions import PHOTO
from .models import SIZE
from .photos import Photos


class Pairs:
    """Two pictures of each person: features of one, latents of the other, from DATA, CACHE (`training.checkpoint
    encode`) and FEATURES (`training.hypernetwork features`), on the device that computes."""

    def __init__(self, data: Path, cache: Path, features: Path, device: torch.device) -> None:
        photos = Photos(data)
        self.rows, self.device = photos.rows, device
        self.latents = torch.from_numpy(np.load(cache / f"latents-{SIZE}.npy")).to(device)
        self.features = torch.from_numpy(np.load(features / "features.npy")).to(device)
        self.head = load_file(features / "head.safetensors")
        self.place = {int(row): i for i, row in enumerate(np.load(features / "photos.npy"))}
        self.pictures: dict[int, list[int]] = {}
        for i in photos.trained:
            self.pictures.setdefault(self.rows[i]["identity"], []).append(int(i))
        self.identities = np.array(sorted(self.pictures))
        teacher = np.load(data / "sface.npy").astype(np.float32)
        self.known = {
            who: F.normalize(torch.from_numpy(teacher[of].mean(0)), dim=0) for who, of in self.pictures.items()
        }

    def photos_of(self, identity: int) -> list[int]:
        """The numbers of this person's photos; styled pictures left out."""
        return [i for i in self.pictures[identity] if self.rows[i]["style"] == PHOTO]

    def batch(self, rng: np.random.Generator, identities: np.ndarray) -> Batch:
        """The face is looked at in one photo, and the loss is taken on another picture, upright or mirrored, as a photo
        or in a style: so the weights learn who this is and not how one photo looked."""
        seen = [self.place[int(rng.choice(self.photos_of(who)))] for who in identities]
        shown = [int(rng.choice(self.pictures[who])) for who in identities]
        mirrored = torch.from_numpy(rng.integers(0, 2, len(shown)))
        return Batch(
            self.features[seen].float(),
            self.latents[shown, mirrored].float(),
            [prompt_for(self.rows[i]["style"], rng) for i in shown],
            identities=torch.stack([self.known[who] for who in identities]).to(self.device),
        )


def prompt_for(style: str, rng: np.random.Generator) -> str:
    """The prompt of the product, in the style that the picture has."""
    if style == PHOTO:
        return "a sks face"
    article = "an" if style[0] in "aeiou" else "a"
    return f"a sks face, {style}" if rng.random() < 0.5 else f"{article} {style} of a sks face"
