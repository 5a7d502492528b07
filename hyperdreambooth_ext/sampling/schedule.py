"""The diffusion process that Stable Diffusion is trained on."""

import torch

from ..hosts.protocol import Host
from ..hosts.transfer import to_device_async


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The forward process q(x_t | x_0): sqrt(ᾱ) x_0 + sqrt(1 - ᾱ) ε, with `alphas_cumprod` [B] at the timesteps."""
    alphas = alphas_cumprod.to(latents).view(-1, 1, 1, 1)
    return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise


def training_target(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """What the UNet should output: the noise, or the velocity sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0."""
    if prediction_type == "epsilon":
        return noise
    alphas = alphas_cumprod.to(latents).view(-1, 1, 1, 1)
    return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents


def clean_latents(
    noisy: torch.Tensor, output: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """x_0 as the UNet's `output` for the noisy latents x_t puts it, with `alphas_cumprod` [B] at the timesteps."""
    alphas = alphas_cumprod.to(noisy).view(-1, 1, 1, 1)
    if prediction_type == "epsilon":
        return (noisy - (1 - alphas).sqrt() * output) / alphas.sqrt()
    return alphas.sqrt() * noisy - (1 - alphas).sqrt() * output


def spread_timesteps(
    size: int, timesteps: int, generator: torch.Generator, within: tuple[float, float] = (0.0, 1.0)
) -> torch.Tensor:
    """`size` random timesteps, int64, one in each of `size` equal parts of the range; `within` are shares of all."""
    shares = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    low, high = within
    return ((low + (high - low) * shares) * timesteps).long()


def random_samples(
    host: Host, latents: torch.Tensor, size: int, generator: torch.Generator, within: tuple[float, float] = (0.0, 1.0)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a training step looks at: `size` random ones of `latents` [N, 4, h, w], their noise, and timesteps that are
    spread evenly over `within`. `generator` is the processor's, so that devices agree; nothing waits for a card."""
    chosen = to_device_async(torch.randint(0, len(latents), (size,), generator=generator), latents.device)
    latents = latents[chosen]
    noise = to_device_async(torch.randn(latents.shape, generator=generator), latents.device).to(latents.dtype)
    timesteps = spread_timesteps(size, len(host.alphas_cumprod), generator, within)
    return latents, noise, to_device_async(timesteps, host.device)


def guided(unconditional: torch.Tensor, conditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) as Stable Diffusion writes it: 1 is the conditional
    output."""
    return unconditional + scale * (conditional - unconditional)


def trailing_timesteps(steps: int, timesteps: int) -> list[int]:
    """`steps` timesteps from the last one downwards, evenly spaced ("trailing" of arXiv 2305.08891)."""
    return [round(timesteps * (steps - i) / steps) - 1 for i in range(steps)]


def step_towards(
    clean: torch.Tensor, latents: torch.Tensor, alpha: torch.Tensor, alpha_next: torch.Tensor
) -> torch.Tensor:
    """x_t = `latents` -> x at the next timestep, if `clean` is x_0 and the rest of x_t is noise; `alpha` is ᾱ at t,
    `alpha_next` ᾱ at the next. With x_0 as the UNet's output puts it: DDIM (Song et al., arXiv 2010.02502), η = 0."""
    noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
    return alpha_next.sqrt() * clean + (1 - alpha_next).sqrt() * noise


def extrapolated(
    clean: torch.Tensor, before: torch.Tensor, alpha_before: torch.Tensor, alpha: torch.Tensor, alpha_next: torch.Tensor
) -> torch.Tensor:
    """x_0 as it will be seen half a step on, from x_0 now and a step `before`: the second order of DPM-Solver++(2M)
    (Lu et al., arXiv 2211.01095, algorithm 2), whose first is DDIM."""
    half_log_snr = [0.5 * torch.log(a / (1 - a)) for a in (alpha_before, alpha, alpha_next)]
    last_step, this_step = half_log_snr[1] - half_log_snr[0], half_log_snr[2] - half_log_snr[1]
    return clean + (clean - before) * this_step / (2 * last_step)
