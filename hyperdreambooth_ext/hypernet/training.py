"""One training step of the hypernetwork: many people at once, each denoised with their own predicted weights."""

from dataclasses import dataclass

import torch

from ..hosts.protocol import Host
from ..hosts.schedule import spread_timesteps
from ..lidb.injection import Applied, injected
from .hypernetwork import WeightDecoder
from .loss import denoising_errors, hypernetwork_loss


@dataclass(frozen=True)
class Batch:
    """features [B, N, channels] of one photo a person; latents [B, 4, h, w] of another photo or of the same one;
    prompts that say how that one looks; targets θ [B, layers, a + b] where pre-optimised LiDBs are at hand."""

    features: torch.Tensor
    latents: torch.Tensor
    prompts: list[str]
    targets: torch.Tensor | None = None


def training_losses(
    host: Host, decoder: WeightDecoder, batch: Batch, generator: torch.Generator, alpha: float = 1.0, beta: float = 0.0,
    min_snr_gamma: float | None = 5.0,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """ "loss" to minimise and its parts. Call within `host.frozen()`.

    `min_snr_gamma` weighs timesteps as in arXiv 2303.09556: where little noise is left, who it is can be seen in the
    latents themselves, and nothing is learned about the weights. None weighs all alike.
    """
    theta = decoder(batch.features)
    losses = {"size": theta.detach().square().mean()}
    diffusion = None
    if alpha:
        diffusion = losses["diffusion"] = _diffusion(host, decoder, theta, batch, generator, min_snr_gamma)
    losses["loss"] = hypernetwork_loss(diffusion, theta, batch.targets, alpha, beta)
    return losses


def _diffusion(
    host: Host,
    decoder: WeightDecoder,
    theta: torch.Tensor,
    batch: Batch,
    generator: torch.Generator,
    min_snr_gamma: float | None,
) -> torch.Tensor:
    latents = batch.latents
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    timesteps = spread_timesteps(len(latents), len(host.alphas_cumprod), generator).to(host.device)
    with injected(host.linears(), Applied(decoder.as_lidb(theta))):
        errors = denoising_errors(host, latents, noise, timesteps, host.encode_prompts(batch.prompts))
    errors = errors.mean((1, 2, 3))
    if min_snr_gamma is None:
        return errors.mean()
    return (errors * min_snr_weights(host.alphas_cumprod[timesteps], min_snr_gamma)).mean()


def min_snr_weights(alphas_cumprod: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """min(γ / SNR, 1) for `alphas_cumprod` [B] at the timesteps (arXiv 2303.09556, for noise prediction)."""
    return (gamma * (1 - alphas_cumprod) / alphas_cumprod).clamp(max=1)
