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
