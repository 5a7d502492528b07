"""A recogniser that reads latents: says whose face it is without decoding a picture, so a training can ask it.

    python -m training.latent_recogniser DATA_DIR FACES_DIR CHECKPOINT_RUN OUT_DIR [--steps 1500] [--shifts]

It learns to see in the checkpoint's latents what the recogniser SFace sees in the pictures; CHECKPOINT_RUN holds
latents.npy. The trainings take it as an identity loss; no measurement uses it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from .captions import PHOTO
from .faces import FIRST_TRAINING_IDENTITY
from .loop import train

WIDTH = 128


class _Residual(nn.Module):
    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, wider, 3, stride, 1),
            nn.GroupNorm(8, wider), nn.SiLU(), nn.Conv2d(wider, wider, 3, 1, 1),
        )  # fmt: skip
        self.skip = nn.Conv2d(channels, wider, 1, stride)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.skip(hidden_states) + self.body(hidden_states)


class LatentRecogniser(nn.Module):
    """Latents of unit variance [B, 4, h, w] -> unit vectors [B, 128]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.body = nn.Sequential(
            nn.Conv2d(4, 64, 3, 1, 1), _Residual(64, 64, 1), _Residual(64, 128, 2), _Residual(128, 128, 1),
            _Residual(128, 256, 2), nn.GroupNorm(8, 256), nn.SiLU(),
        )  # fmt: skip
        # Where in the face something is matters: no pooling over places.
        self.head = nn.Linear(256 * 16, WIDTH)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        features = F.adaptive_avg_pool2d(self.body(latents), 4).flatten(1)
        features = F.dropout(features, self.dropout, self.training)
        return F.normalize(self.head(features).float(), dim=-1)

    @classmethod
    def load(cls, file: Path) -> "LatentRecogniser":
        """A trained one, frozen."""
        network = cls()
        network.load_state_dict(load_file(file))
        return network.eval().requires_grad_(False)


class Readers(nn.Module):
    """Several recognisers that answer as one: unit vectors [B, 128]. What fools one seldom fools all."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        self.readers = nn.ModuleList(LatentRecogniser.load(file) for file in files)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return F.normalize(torch.stack([reader(latents) for reader in self.readers]).sum(0), dim=-1)


def softened(latents: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a denoiser's guess looks like: smoother than a photo's latents, and not quite clean."""
    count = len(latents)
    small = F.interpolate(latents, scale_factor=float(rng.uniform(0.5, 1)), mode="bilinear", antialias=True)
    smooth = F.interpolate(small, latents.shape[-2:], mode="bilinear")
    share = torch.from_numpy(rng.uniform(0, 1, (count, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
    strength = torch.from_numpy(rng.uniform(0, 0.4, (count, 1, 1, 1)).astype(np.float32))
    return torch.lerp(latents, smooth, share) + strength * noise


def shifted(latents: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirrored or not, and moved by at most one latent: a drawing is not always just where a photo is."""
    if rng.random() < 0.5:
        latents = latents.flip(-1)
    up, left = (int(x) for x in rng.integers(0, 3, 2))
    height, width = latents.shape[-2:]
    return F.pad(latents, (1, 1, 1, 1), mode="replicate")[..., up : up + height, left : left + width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "faces", "checkpoint_run", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shifts", action="store_true", help="see the faces mirrored and moved by a latent, too")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.data / "index.jsonl").read_text().splitlines()]
    names = [json.loads(line)["photo"] for line in (args.faces / "photos.jsonl").read_text().splitlines()]
    teacher = dict(zip(names, np.load(args.faces / "sface.npy").astype(np.float32), strict=True))
    latents = np.load(args.checkpoint_run / "latents.npy", mmap_mode="r")
    photos = [i for i, row in enumerate(rows) if row["style"] == PHOTO]
    usable = np.array([i for i in photos if rows[i]["identity"] >= FIRST_TRAINING_IDENTITY])
    unseen = np.array([i for i in photos if rows[i]["identity"] < FIRST_TRAINING_IDENTITY])
    torch.manual_seed(0)
    network = LatentRecogniser(args.dropout)

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(usable, args.batch, replace=False)
        people = torch.tensor([rows[i]["identity"] for i in chosen])
        wanted = torch.from_numpy(np.stack([teacher[rows[i]["photo"]] for i in chosen]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            shown = softened(torch.from_numpy(latents[chosen]).float(), rng)
            features = network(shifted(shown, rng) if args.shifts else shown)
        cosine = features @ wanted.T
        same = people[:, None] == people[None]
        likely = (10 * cosine).masked_fill(same & ~torch.eye(len(people), dtype=torch.bool), -1e4)
        ranking = F.cross_entropy(likely, torch.arange(len(people)))
        alike = cosine.diagonal().mean()
        return {"loss": 1 - alike + 0.2 * ranking, "cosine": alike, "ranking": ranking}

    average = train(args.out, network, losses, steps=args.steps, lr=1e-3, weight_decay=args.weight_decay).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "latent_recogniser.safetensors")
    with torch.no_grad():
        features = average(torch.from_numpy(latents[unseen]).float()).numpy()
    wanted = np.stack([teacher[rows[i]["photo"]] for i in unseen])
    others = np.array([rows[i]["identity"] for i in unseen])
    cosine = features @ wanted.T
    cosine[np.equal.outer([rows[i]["photo"] for i in unseen], [rows[i]["photo"] for i in unseen])] = -1
    print("unseen people: cosine", float((features * wanted).sum(1).mean()), "rank-1 against another photo",
          float((others[cosine.argmax(1)] == others).mean()))  # fmt: skip


if __name__ == "__main__":
    main()
