"""Pictures from a prompt with `<lidb:…>` tags, without the WebUI."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from ..errors import FileError
from ..hosts.protocol import Host
from ..lidb.file import load, path_of
from ..lidb.injection import Applied, injected
from ..lidb.tags import parse_prompt
from ..sampling.guidance import guided
from ..sampling.sampler import Sampling, to_picture


def generate(
    host: Host, prompt: str, lidb_dir: Path, sampling: Sampling, on_step: Callable[[], object] = lambda: None
) -> np.ndarray:
    """One picture, RGB uint8 [size, size, 3], with the LiDBs that the prompt's tags name in `lidb_dir`.

    Raises FileError when a LiDB is missing, ArchitectureError when it was made for another model.
    """
    text, tags = parse_prompt(prompt)
    applied = [Applied(load_named(lidb_dir, tag.name), tag.unet, tag.text) for tag in tags]
    return sample(host, [text], applied, [sampling.seed], sampling, on_step)[0]


def load_named(folder: Path, name: str):
    """The LiDB that a tag names. Raises UserError for a name that leads out of the folder, FileError without a file."""
    path = path_of(folder, name)
    if not path.is_file():
        raise FileError(f"There is no LiDB {name!r} in {folder}: check the name in the tag.")
    return load(path)[0]


@torch.no_grad()
def sample(
    host: Host, prompts: Sequence[str], applied: Sequence[Applied], seeds: Sequence[int], sampling: Sampling,
    on_step: Callable[[], object] = lambda: None,
) -> list[np.ndarray]:  # fmt: skip
    """A batch of pictures with `applied` in the model; sample i starts from the noise of seeds[i]."""
    size = (sampling.size or host.default_size) // 8
    noise = [torch.randn(4, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    scheduler = _scheduler(host)
    scheduler.set_timesteps(sampling.steps)
    latents = torch.stack(noise).to(host.device) * scheduler.init_noise_sigma
    # A LiDB per sample needs to be there for both halves of the guided batch: run the halves one after the other.
    with host.frozen(), injected(host.linears(), *applied):
        cond = host.encode_prompts(prompts)
        uncond = host.encode_prompts([sampling.negative] * len(prompts)) if sampling.cfg != 1 else None
        for timestep in scheduler.timesteps:
            timesteps = timestep.expand(len(latents)).to(host.device)
            output = host.predict(latents, timesteps, cond)
            if uncond is not None:
                base = host.predict(latents, timesteps, uncond)
                output = guided(base, output, sampling.cfg)
            latents = scheduler.step(output, timestep, latents).prev_sample
            on_step()
    return [to_picture(image) for image in host.decode_latents(latents)]


def _scheduler(host: Host) -> Any:
    alphas = host.alphas_cumprod.double().cpu()
    betas = 1 - alphas / torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])
    return DPMSolverMultistepScheduler(
        trained_betas=betas.numpy(), prediction_type=host.prediction_type, use_karras_sigmas=True,
        timestep_spacing="trailing",
    )  # fmt: skip
