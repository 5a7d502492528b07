"""The photos that everything here is trained on: 256 px frames in one array, on the device that computes."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

FRAME = 256
"""The side of the stored frames, in pixels."""
FIRST_TRAINING_IDENTITY = 200


class Photos:
    """DATA/images.npy, uint8 [N, 256, 256, 3], and DATA/index.jsonl, one line a picture."""

    def __init__(self, folder: Path, device: torch.device = torch.device("cpu")) -> None:
        self.rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
        self.images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="r" if device.type == "cpu" else None))
        self.images = self.images.to(device)
        self.device = device
        self.landmarks = torch.tensor([row["landmarks"] for row in self.rows], device=device).view(-1, 5, 2)
        self.trained = np.array([i for i, row in enumerate(self.rows) if row.get("use", "train") == "train"])
        self.held_out = np.array([i for i, row in enumerate(self.rows) if row.get("use", "train") != "train"])

    def pictures(self, chosen: np.ndarray) -> torch.Tensor:
        """Whole frames, float32 [B, 3, 256, 256] in [-1, 1]."""
        return self._as_float(self.images[torch.from_numpy(chosen)])

    def crops(self, chosen: np.ndarray, rng: np.random.Generator, size: int, side: int) -> torch.Tensor:
        """Of frames made `side` pixels wide, random squares of `size`: float32 [B, 3, size, size] in [-1, 1]."""
        taken = min(FRAME, round(size * FRAME / side))
        corners = rng.integers(0, FRAME - taken + 1, (len(chosen), 2))
        crops = [self.images[i, y : y + taken, x : x + taken] for i, (y, x) in zip(chosen, corners, strict=True)]
        return resized(self._as_float(torch.stack(crops)), size)

    def _as_float(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def resized(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures [B, 3, H, W] as [B, 3, size, size], averaged over what a pixel covers."""
    if pictures.shape[-1] == size:
        return pictures
    small = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(-1, 1)


def varied(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures [B, 3, H, W] in [-1, 1] as another photo might be: a little nearer, aside, stretched and bent, brighter
    or darker, warmer or colder. Nothing from beyond the frame comes in."""
    count, (height, width) = len(pictures), pictures.shape[-2:]

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape)).astype(np.float32)).to(pictures.device)

    stretch = uniform(-0.02, 0.02)
    reach = uniform(0.92, 0.98)[:, None] * torch.stack([stretch.exp(), (-stretch).exp()], 1)
    transform = torch.zeros(count, 2, 3, device=pictures.device)
    transform[:, 0, 0], transform[:, 1, 1] = reach.unbind(1)
    transform[:, :, 2] = (1 - reach) * uniform(-1, 1, 2)
    grid = F.affine_grid(transform, list(pictures.shape), align_corners=False)
    bend = F.interpolate(uniform(-0.015, 0.015, 2, 5, 5), (height, width), mode="bicubic", align_corners=False)
    pictures = F.grid_sample(pictures, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    light = uniform(0.9, 1.1, 1, 1, 1) * uniform(0.97, 1.03, 3, 1, 1)
    return ((pictures + 1) * light - 1).clamp(-1, 1)
