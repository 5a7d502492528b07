"""What the hypernetwork is taught from: pairs of two photos of one person, out of the caches."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hyperdreambooth_ext.hypernet.training import Batch

from .captions import PHOTO
from .faces import FIRST_TRAINING_IDENTITY


def index_of(data: Path) -> list[dict]:
    """The lines of DATA_DIR/index.jsonl."""
    return [json.loads(line) for line in (data / "index.jsonl").read_text().splitlines()]


class Sampler:
    """Pairs of two photos of one person from the caches."""

    def __init__(self, data: Path, checkpoint_run: Path, out: Path, identities: int | None) -> None:
        self.rows = index_of(data)
        self.latents = np.load(checkpoint_run / "latents.npy")
        self.features = np.load(out / "features.npy", mmap_mode="r")
        self.head = load_file(out / "head.safetensors")
        self.place = {row: i for i, row in enumerate(np.load(out / "photos.npy"))}
        self.people: dict[int, list[int]] = {}
        for i, row in enumerate(self.rows):
            if row["identity"] >= FIRST_TRAINING_IDENTITY:
                self.people.setdefault(row["identity"], []).append(i)
        self.identities = np.array(sorted(self.people))[:identities]

    def batch(self, rng: np.random.Generator, people: np.ndarray) -> Batch:
        seen = [rng.choice([i for i in self.people[p] if self.rows[i]["style"] == PHOTO]) for p in people]
        shown = [int(rng.choice(self.people[p])) for p in people]
        return Batch(
            torch.from_numpy(np.stack([self.features[self.place[i]] for i in seen])).float(),
            torch.from_numpy(self.latents[shown]).float(),
            [prompt_for(self.rows[i]["style"], rng) for i in shown],
        )


def known_identities(faces: Path) -> dict[int, torch.Tensor]:
    """SFace's mean feature of each person, a unit vector [128], from FACES_DIR."""
    features = np.load(faces / "sface.npy").astype(np.float32)
    people: dict[int, list[np.ndarray]] = {}
    for line, feature in zip((faces / "photos.jsonl").read_text().splitlines(), features, strict=True):
        people.setdefault(json.loads(line)["identity"], []).append(feature)
    return {who: F.normalize(torch.from_numpy(np.mean(of, axis=0)), dim=0) for who, of in people.items()}


def prompt_for(style: str, rng: np.random.Generator) -> str:
    """The prompt of the product, in the style that the picture has."""
    if style == PHOTO:
        return "a sks face"
    article = "an" if style[0] in "aeiou" else "a"
    return f"a sks face, {style}" if rng.random() < 0.5 else f"{article} {style} of a sks face"
