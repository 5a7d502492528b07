"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

import torch


def guided(unconditional: torch.Tensor, conditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598) as Stable Diffusion writes it: 1 is the conditional output."""
    return unconditional + scale * (conditional - unconditional)
