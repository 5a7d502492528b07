"""A face recognizer for latents: the identity of a face without decoding a picture, so that a loss can use it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

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


class LatentIdentityNet(nn.Module):
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
    def load(cls, file: Path) -> "LatentIdentityNet":
        """A trained one, frozen."""
        network = cls()
        network.load_state_dict(load_file(file))
        return network.eval().requires_grad_(False)


class LatentIdentityEnsemble(nn.Module):
    """Several nets whose mean is one identity: unit vectors [B, 128]. What fools one seldom fools all."""

    def __init__(self, nets: Iterable[LatentIdentityNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    @classmethod
    def untrained(cls, count: int) -> "LatentIdentityEnsemble":
        """So many nets, for weights to be read into."""
        return cls(LatentIdentityNet() for _ in range(count))

    @classmethod
    def load(cls, files: Iterable[Path]) -> "LatentIdentityEnsemble":
        """Trained ones, frozen."""
        return cls(LatentIdentityNet.load(file) for file in files)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return F.normalize(torch.stack([net(latents) for net in self.nets]).sum(0), dim=-1)


def softened(latents: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a denoiser's guess looks like: smoother than a photo's latents, and not quite clean."""
    count = len(latents)
    small = F.interpolate(latents, scale_factor=float(rng.uniform(0.5, 1)), mode="bilinear", antialias=True)
    smooth = F.interpolate(small, latents.shape[-2:], mode="bilinear")
    share = torch.from_numpy(rng.uniform(0, 1, (count, 1, 1, 1)).astype(np.float32)).to(latents)
    noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32)).to(latents)
    strength = torch.from_numpy(rng.uniform(0, 0.4, (count, 1, 1, 1)).astype(np.float32)).to(latents)
    return torch.lerp(latents, smooth, share) + strength * noise


def moved(latents: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirrored or not, and moved by at most one latent: a sample is not always just where a photo is."""
    if rng.random() < 0.5:
        latents = latents.flip(-1)
    up, left = (int(x) for x in rng.integers(0, 3, 2))
    height, width = latents.shape[-2:]
    return F.pad(latents, (1, 1, 1, 1), mode="replicate")[..., up : up + height, left : left + width]


def recognition_losses(
    features: torch.Tensor, identities: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:  # fmt: skip
    """What a net is trained on: `features` and the teacher's `identities`, unit vectors [B, C], of `labels` [B].

    "loss" is 1 − cosine and, so that persons are kept apart, the cross-entropy of which of the batch it is.
    """
    cosine = features @ identities.T
    same = labels[:, None] == labels[None]
    likely = (10 * cosine).masked_fill(same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device), -1e4)
    ranking = F.cross_entropy(likely, torch.arange(len(labels), device=likely.device))
    alike = cosine.diagonal().mean()
    return {"loss": 1 - alike + 0.2 * ranking, "cosine": alike, "ranking": ranking}
