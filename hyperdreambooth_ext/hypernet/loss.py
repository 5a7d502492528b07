"""What the hypernetwork is trained on: α · diffusion loss + β · ‖θ̂ − θ‖² (HyperDreamBooth, equation 4), and an identity
loss beside the diffusion loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..sampling.schedule import add_noise, training_target


@dataclass(frozen=True)
class IdentityLoss:
    """`weight` · (1 − cosine) of the identity that a frozen `net` sees in the clean latents that the model's output
    amounts to, and the identity that it should be. Not in the paper; the idea is PuLID's (arXiv 2404.16022), here in
    latents, where it costs next to nothing.

    Noisy latents of a photo still show much of an identity. So the first `samples` identities of a step are also
    sampled from pure noise, as they will be when a LiDB is used, with `prompt` and a few steps of DDIM down to
    somewhere in `sampled_until` (shares of all timesteps). There they are judged with `sampled_weight`.
    """

    net: Callable[[torch.Tensor], torch.Tensor]
    weight: float = 0.1
    samples: int = 0
    sampled_weight: float = 0.1
    prompt: str = "a sks face"
    sampled_until: tuple[float, float] = (0.3, 0.9)

    def per_sample(self, guess: torch.Tensor, identities: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
        """1 − cosine [B] of clean latents `guess` [B, 4, h, w] and `identities` [B, channels]; where nearly all is
        noise, clean latents are a guess and count less."""
        return (1 - F.cosine_similarity(self.net(guess), identities, dim=-1)) * (10 * alphas_cumprod).clamp(max=1)

    def of_samples(self, samples: torch.Tensor, identities: torch.Tensor) -> torch.Tensor:
        """The mean of 1 − cosine of sampled clean latents [S, 4, h, w] and the first of `identities` [B, channels]."""
        return (1 - F.cosine_similarity(self.net(samples), identities[: len(samples)], dim=-1)).mean()


@dataclass(frozen=True)
class LossConfig:
    """α and β of equation 4, and the identity loss."""

    alpha: float = 1.0
    beta: float = 0.0
    identity: IdentityLoss | None = None


def denoising_errors(
    host: Host, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor
) -> torch.Tensor:
    """Squared errors [B, 4, h, w] of the model, as it is now, on `latents` at `timesteps` [B].

    Call it within `injected(...)`: with a LiDB that has a leading dimension, each sample is denoised with its own
    identity's weights.
    """
    alphas_cumprod = host.alphas_cumprod[timesteps]
    predicted = host.predict(add_noise(latents, noise, alphas_cumprod), timesteps, prompt_embeds).float()
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    return F.mse_loss(predicted, target, reduction="none")


def min_snr_weights(alphas_cumprod: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """min(γ / SNR, 1) for `alphas_cumprod` [B] at the timesteps (arXiv 2303.09556, for noise prediction): where little
    noise is left, the latents themselves show the identity, and nothing is learned about the weights."""
    return (gamma * (1 - alphas_cumprod) / alphas_cumprod).clamp(max=1)
