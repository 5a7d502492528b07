"""Does a text-to-image training still learn what it has not seen? Its loss on pictures that are kept out of it."""

import numpy as np
import torch
from torch import nn

from hyperdreambooth_ext.sampling.schedule import add_noise

BATCH, LEVELS = 40, 4


@torch.no_grad()
def loss_of(
    model: nn.Module, latents: torch.Tensor, tokens: torch.Tensor, alphas_cumprod: torch.Tensor, gamma: float
) -> float:
    """The mean min-SNR weighted loss of latents float32 [B, 4, h, w] with tokens int64 [B, 77], each at LEVELS noise
    levels; always with the same noise."""
    snr, losses = alphas_cumprod / (1 - alphas_cumprod), []
    for first in range(0, len(latents), BATCH):
        shown = latents[first : first + BATCH].repeat(LEVELS, 1, 1, 1)
        generator = torch.Generator().manual_seed(first)
        noise = torch.randn(shown.shape, generator=generator).to(shown)
        spread = (torch.arange(len(shown)) + 0.5) / len(shown) * len(alphas_cumprod)
        timesteps = spread.long().view(-1, LEVELS).T.flatten().to(shown.device)
        predicted = model(add_noise(shown, noise, alphas_cumprod[timesteps]), timesteps, tokens[first : first + BATCH])
        errors = (predicted.float() - noise).square().mean((1, 2, 3))
        losses.append(errors * (gamma / snr[timesteps]).clamp(max=1))
    return float(torch.cat(losses).mean())


def as_many(seen: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """A random part of what is trained on, as large as what is kept out."""
    return np.random.default_rng(0).permutation(seen)[: len(held_out)]
