"""What the hypernetwork is trained on: α · diffusion loss + β · ‖θ̂ − θ‖² (HyperDreamBooth, equation 4)."""

import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..sampling.schedule import add_noise, clean_latents, training_target


def denoising_errors(
    host: Host, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor
) -> torch.Tensor:
    """Squared errors [B, 4, h, w] of the model, as it is now, on `latents` at `timesteps` [B].

    Call it within `injected(...)`: with a LiDB that has a leading dimension, each sample is denoised with its own
    person's weights.
    """
    noisy = add_noise(latents, noise, host.alphas_cumprod[timesteps])
    predicted = host.predict(noisy, timesteps, prompt_embeds).float()
    return compared(host, latents, noise, timesteps, noisy, predicted)[0]


def compared(
    host: Host, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, noisy: torch.Tensor,
    predicted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Squared errors [B, 4, h, w] of what was `predicted` for `noisy`, and the clean latents [B, 4, h, w] that it
    amounts to."""
    alphas_cumprod = host.alphas_cumprod[timesteps]
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    guess = clean_latents(noisy, predicted, alphas_cumprod, host.prediction_type)
    return F.mse_loss(predicted, target, reduction="none"), guess


def hypernetwork_loss(
    diffusion: torch.Tensor | None, theta: torch.Tensor, targets: torch.Tensor | None, alpha: float, beta: float
) -> torch.Tensor:
    """α · `diffusion` + β · ‖θ̂ − θ‖² per sample, summed over a layer's numbers and averaged over layers and samples.

    Either weight may be 0; its term may then be None. Raises ValueError when both are 0 or a needed term is missing.
    """
    terms = []
    if alpha:
        if diffusion is None:
            raise ValueError("alpha > 0 needs the diffusion loss")
        terms.append(alpha * diffusion)
    if beta:
        if targets is None:
            raise ValueError("beta > 0 needs targets")
        terms.append(beta * (theta - targets).square().sum(-1).mean())
    if not terms:
        raise ValueError("alpha and beta cannot both be 0")
    return torch.stack(terms).sum()
