"""A small DDIM sampler in plain torch: previews and before/after pictures where no other sampler is at hand.

With classifier-free guidance (Ho and Salimans, arXiv 2207.12598).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..sampling.guidance import guided
from ..sampling.schedule import ddim_step, trailing_timesteps

# So many places of latents are decoded at once: a large picture alone, many small ones together.
_DECODED_PLACES = 64 * 64


@dataclass(frozen=True)
class Sampling:
    """`size` is the side in pixels, None for the checkpoint's own; `cfg` the classifier-free guidance scale."""

    steps: int = 25
    cfg: float = 4.0
    size: int | None = None
    negative: str = ""
    seed: int = 0


class Stopped(Exception):
    """`should_stop` said so: there is no picture."""


def sample(
    host: Host,
    prompt: str,
    sampling: Sampling = Sampling(),
    applied: Sequence[Applied] = (),
    on_step: Callable[[], object] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """One picture, RGB uint8 [size, size, 3], with the LiDBs of `applied` in the model.

    `should_stop` is asked before each step. Raises Stopped then, ArchitectureError when a LiDB does not fit.
    """
    return sample_many(host, [prompt], [sampling.seed], sampling, applied, on_step, should_stop)[0]


@torch.no_grad()
def sample_many(
    host: Host,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling = Sampling(),
    applied: Sequence[Applied] = (),
    on_step: Callable[[], object] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[np.ndarray]:
    """A batch of pictures as `sample` makes them, picture i from `prompts[i]` and the noise of `seeds[i]`.

    A LiDB with a leading dimension gives each picture its own person.
    """
    side = (sampling.size or host.default_size) // 8
    noise = [torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.cat(noise).to(host.device)
    timesteps = trailing_timesteps(sampling.steps, len(host.alphas_cumprod))
    with host.frozen(), injected(host.linears(), *applied):
        wanted = host.encode_prompts(prompts)
        unwanted = host.encode_prompts([sampling.negative] * len(prompts)) if sampling.cfg != 1 else None
        for i, timestep in enumerate(timesteps):
            if should_stop():
                raise Stopped
            # The two halves of the guidance go one after the other: a host's condition need not be one tensor.
            now = torch.full((len(latents),), timestep, device=host.device)
            output = host.predict(latents, now, wanted)
            if unwanted is not None:
                base = host.predict(latents, now, unwanted)
                output = guided(base, output, sampling.cfg)
            alpha = host.alphas_cumprod[timestep]
            last = i + 1 == len(timesteps)
            alpha_next = torch.ones_like(alpha) if last else host.alphas_cumprod[timesteps[i + 1]]
            latents = ddim_step(latents, output, alpha, alpha_next, host.prediction_type)
            on_step()
    return [to_picture(image) for part in decoded(host, latents) for image in part]


def decoded(host: Host, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Scaled latents [B, 4, h, w] -> pictures [b, 3, 8h, 8w], a few at a time."""
    at_once = max(1, _DECODED_PLACES // (latents.shape[-2] * latents.shape[-1]))
    return (host.decode_latents(part) for part in latents.split(at_once))


def to_picture(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] -> RGB uint8 [H, W, 3]."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
