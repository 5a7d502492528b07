"""Pre-optimized LiDBs, many in one pass: the targets θ that the hypernetwork may learn from (section 4.2)."""

import math
from collections.abc import Callable

import torch

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB
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
    start = decoder.head_bias.detach().expand(count, -1, -1)
    trained = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([trained], lr=lr, betas=(0.9, 0.99))
    prompts = [prompt] * count
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        latents = latents_at(step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = spread_timesteps(count, len(host.alphas_cumprod), generator)
        timesteps = timesteps[torch.randperm(count, generator=generator)].to(host.device)
        with injected(host.linears(), Applied(_sharing_b(decoder, trained))):
            errors = denoising_errors(host, latents, noise, timesteps, host.encode_prompts(prompts))
        loss = (errors.mean((1, 2, 3)) * min_snr_weights(host.alphas_cumprod[timesteps])).sum()
        (trained.grad,) = torch.autograd.grad(loss, [trained])
        optimizer.step()
    is_a = decoder.is_a().bool()
    return torch.where(is_a, trained.detach(), start)


def _sharing_b(decoder: WeightDecoder, theta: torch.Tensor) -> LiDB:
    """θ as a LiDB whose B_train is one for all identities: a plain matrix product, and no gradient is computed."""
    lidb = decoder.as_lidb(theta)
    shared = decoder.as_lidb(decoder.head_bias.detach()[None])
    b_train = {key: rows[0] for key, rows in shared.b_train.items()}
    return LiDB(lidb.architecture, lidb.basis, lidb.a_train, b_train)
