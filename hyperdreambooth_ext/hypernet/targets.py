"""Pre-optimized LiDBs, many in one pass: the targets θ that the hypernetwork may learn from (section 4.2)."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..sampling.schedule import spread_timesteps
from .hypernetwork import WeightDecoder
from .loss import denoising_errors, min_snr_weights


def preoptimize(
    host: Host,
    decoder: WeightDecoder,
    latents_at: Callable[[int], torch.Tensor],
    prompt: str,
    generator: torch.Generator,
    steps: int = 40,
    lr: float = 0.03,
) -> torch.Tensor:
    """θ [B, layers, a + b] of B identities, each trained on their own latents, in one forward and backward a step.

    `latents_at(step)` gives one picture of each identity, [B, 4, h, w]. All share the decoder's own B_train and train
    A_train alone: so their numbers can be compared, and learned from. Call within `host.frozen()`.
    """
    count = len(latents_at(0))
    trained = decoder.head_bias.detach().repeat(count, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([trained], lr=lr, betas=(0.9, 0.99))
    prompts = [prompt] * count
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        latents = latents_at(step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = spread_timesteps(count, len(host.alphas_cumprod), generator)
        timesteps = timesteps[torch.randperm(count, generator=generator)].to(host.device)
        lidb = decoder.as_lidb(trained)
        # One for all: a plain matrix product, and no gradient is computed.
        lidb = replace(lidb, b_train={key: rows[0].detach() for key, rows in lidb.b_train.items()})
        with injected(host.linears(), Applied(lidb)):
            errors = denoising_errors(host, latents, noise, timesteps, host.encode_prompts(prompts))
        loss = (errors.mean((1, 2, 3)) * min_snr_weights(host.alphas_cumprod[timesteps])).sum()
        (trained.grad,) = torch.autograd.grad(loss, [trained])
        optimizer.step()
    return trained.detach()
