"""The person to learn, ready for training: crop, latents and mask, each computed once."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..hosts.transfer import sent
from ..images.face import Face, crop_face, face_mask
from ..sampling.schedule import spread_timesteps

# Outside the face the loss counts this much: enough to keep the picture whole, not enough to learn the wallpaper.
BACKGROUND_WEIGHT = 0.1
DEFAULT_TRIGGER = "sks"


@dataclass(frozen=True)
class Subject:
    """image [1, 3, S, S] in [-1, 1], what a hypernetwork is shown; latents [2, 4, S/8, S/8], upright and mirrored;
    mask [1, 1, S/8, S/8]."""

    image: torch.Tensor
    latents: torch.Tensor
    mask: torch.Tensor | None
    prompt: str
    trigger: str = DEFAULT_TRIGGER

    @property
    def class_prompt(self) -> str:
        """The prompt of anybody: "a face" for "a sks face"."""
        return class_prompt(self.prompt, self.trigger)

    def noisy_batch(
        self, host: Host, size: int, generator: torch.Generator, within: tuple[float, float] = (0.0, 1.0)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, noise and timesteps for `size` samples, the timesteps spread evenly over `within`, shares of all."""
        mirrored = torch.randint(0, len(self.latents), (size,), generator=generator)
        latents = self.latents[sent(mirrored, self.latents.device)]
        noise = sent(torch.randn(latents.shape, generator=generator), latents.device).to(latents.dtype)
        timesteps = spread_timesteps(size, len(host.alphas_cumprod), generator, within)
        return latents, noise, sent(timesteps, host.device)


def class_prompt(prompt: str, trigger: str = DEFAULT_TRIGGER) -> str:
    """`prompt` without the trigger."""
    return " ".join(word for word in prompt.split() if word != trigger)


def prepare_subject(
    photo: np.ndarray, face: Face, host: Host, prompt: str, size: int, masked: bool = True,
    trigger: str = DEFAULT_TRIGGER, through_autoencoder: bool = False,
) -> Subject:  # fmt: skip
    """Crop the face to `size` pixels and encode it, upright and mirrored.

    `through_autoencoder`: the image is what the latents keep of the crop. A hypernetwork that learned from drawn faces
    has seen no others, and reads another person out of a sharp photo (docs/build.md).
    """
    crop = crop_face(photo, face, size)
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].contiguous().float() / 127.5 - 1
    # One after the other: of a large picture this is where a graphics card needs the most memory.
    latents = torch.cat([host.encode_images(one) for one in (image, image.flip(-1))])
    mask = None
    if masked:
        weights = F.interpolate(torch.from_numpy(face_mask(size))[None, None], latents.shape[-2:], mode="area")
        mask = (BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * weights).to(host.device)
    if through_autoencoder:
        image = host.decode_latents(latents[:1]).float().cpu().clamp(-1, 1)
    return Subject(image, latents, mask, prompt, trigger)
