"""The sampler of previews, jobs, builds and the command line: DPM-Solver++(2M) with classifier-free guidance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..hosts.protocol import Host
from ..images.tensors import to_picture
from ..lidb.injection import Applied, injected
from .schedule import clean_latents, extrapolated, guided, step_towards, trailing_timesteps

# So many places of latents are decoded at once: a large picture alone, many small ones together.
_DECODED_PLACES = 64 * 64


@dataclass(frozen=True)
class Sampling:
    """`size` is the side in pixels, `cfg` the classifier-free guidance scale; None for the checkpoint's own."""

    steps: int = 25
    cfg: float | None = None
    size: int | None = None
    negative: str = ""
    seed: int = 0


def usual_cfg(size: int) -> float:
    """The guidance scale for a checkpoint that was made for pictures of this side. One below 512 pixels is a small one
    of its own, whose faces larger scales burn; the others are used with 7, the WebUI's default."""
    return 2.0 if size < 512 else 7.0


class Stopped(Exception):
    """`should_stop` said so: there is no picture."""


def sample(
    host: Host,
    prompt: str,
    sampling: Sampling = Sampling(),
    applied: Sequence[Applied] = (),
    on_step: Callable[[], object] = lambda: None,
    should_stop: Callable[[], object] = lambda: False,
) -> np.ndarray:
    """One picture, RGB uint8 [size, size, 3], with the LiDBs of `applied` in the model.

    `should_stop` is asked before each step: raises Stopped when it says so. Raises ArchitectureError when a LiDB does
    not fit.
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
    should_stop: Callable[[], object] = lambda: False,
) -> list[np.ndarray]:
    """A batch of pictures as `sample` makes them, picture i from `prompts[i]` and the noise of `seeds[i]`.

    A LiDB with a leading dimension gives each picture its own person.
    """
    side = (sampling.size or host.default_size) // 8
    noise = [torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.cat(noise).to(host.device)
    cfg = usual_cfg(host.default_size) if sampling.cfg is None else sampling.cfg
    timesteps = trailing_timesteps(sampling.steps, len(host.alphas_cumprod))
    with host.frozen(), injected(host.linears(), *applied):
        cond = host.encode_prompts(prompts)
        uncond = host.encode_prompts([sampling.negative] * len(prompts)) if cfg != 1 else None

        def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
            if should_stop():
                raise Stopped
            # The two halves of the guidance go one after the other: a host's condition need not be one tensor.
            now = torch.full((len(latents),), timestep, device=host.device)
            output = host.predict(latents, now, cond)
            return output if uncond is None else guided(host.predict(latents, now, uncond), output, cfg)

        latents = denoised(host, latents, timesteps, predict, on_step)
    return [to_picture(image) for part in decoded(host, latents) for image in part]


def denoised(
    host: Host,
    latents: torch.Tensor,
    timesteps: Sequence[int],
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    on_step: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Noise [B, 4, h, w] -> clean latents, float32, along the falling `timesteps`; `predict` gives the UNet's output.

    DPM-Solver++(2M); the first step and the last, to no noise at all, are DDIM's.
    """
    alphas = [*host.alphas_cumprod[list(timesteps)], torch.ones((), device=host.device)]
    latents = latents.float()
    before: torch.Tensor | None = None
    for i, timestep in enumerate(timesteps):
        output = predict(latents, timestep).float()
        clean = clean_latents(latents, output, alphas[i][None], host.prediction_type)
        target = clean
        if before is not None and i + 1 < len(timesteps):
            target = extrapolated(clean, before, *alphas[i - 1 : i + 2])
        latents, before = step_towards(target, latents, alphas[i], alphas[i + 1]), clean
        on_step()
    return latents


def decoded(host: Host, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Scaled latents [B, 4, h, w] -> pictures [b, 3, 8h, 8w], a few at a time."""
    size = max(1, _DECODED_PLACES // (latents.shape[-2] * latents.shape[-1]))
    return (host.decode_latents(part) for part in latents.split(size))
