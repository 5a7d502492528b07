"""What all rows of a comparison share, made once: pictures of anybody for DreamBooth, the stand-in for CLIP's image
tower for aesthetic gradients."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from .aesthetic import image_head
from .method import CLASS_PROMPT

AT_ONCE = 8


def make_shared(file: Path, checkpoint: Path, hypernetworks: Path, pictures: int, picture_steps: int) -> None:
    """Write FILE with `prior`, latents [pictures, 4, h, w], and `image_head`; nothing if it is there."""
    if file.exists():
        return
    host, sampling = DiffusersHost(checkpoint), Sampling(steps=picture_steps)
    hypernetwork = fitting_hypernetwork(host, hypernetworks)
    if hypernetwork is None:
        raise UserError(f"No hypernetwork in {hypernetworks} fits {checkpoint.name}: say --hypernetworks FOLDER.")
    sampled: list[np.ndarray] = []
    for first in range(0, pictures, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, pictures))
        sampled += sample_many(host, [CLASS_PROMPT] * len(seeds), seeds, sampling)
    images = torch.from_numpy(np.stack(sampled)).permute(0, 3, 1, 2).float() / 127.5 - 1
    tensors = {
        "prior": host.encode_images(images).contiguous(),
        "image_head": image_head(host, hypernetwork, 2 * pictures, sampling).contiguous(),
    }
    write_atomically(file, save(tensors))
