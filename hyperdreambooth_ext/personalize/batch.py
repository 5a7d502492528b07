"""What an iteration of the finetune looks at: noises of the one photo, and prior-preservation samples beside them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..hypernet.config import DEFAULT_TRIGGER
from ..images.face import face_mask
from ..images.tensors import to_tensor
from ..sampling.recorded import TensorBatch
from ..sampling.schedule import add_noise, random_samples, training_target
from .prior_preservation import PriorBatch

# Outside the face the loss counts this much: enough to keep the picture whole, not enough to learn the wallpaper.
BACKGROUND_WEIGHT = 0.1


@dataclass(frozen=True)
class Subject:
    """The person to learn. image [1, 3, S, S] in [-1, 1], what a hypernetwork is shown; latents [2, 4, S/8, S/8],
    upright and mirrored; mask [1, 1, S/8, S/8]."""

    image: torch.Tensor
    latents: torch.Tensor
    mask: torch.Tensor | None
    prompt: str
    trigger: str = DEFAULT_TRIGGER


def prepare_subject(
    crop: np.ndarray, host: Host, prompt: str, trigger: str = DEFAULT_TRIGGER, through_autoencoder: bool = False
) -> Subject:
    """Encode the aligned face `crop`, RGB uint8 [S, S, 3], upright and mirrored.

    `through_autoencoder`: the image is what the latents keep of the crop. A hypernetwork that learned from sampled
    faces has seen no others, and reads another person out of a sharp photo (docs/build.md).
    """
    image = to_tensor([crop])
    # One after the other: of a large picture this is where a graphics card needs the most memory.
    latents = torch.cat([host.encode_images(one) for one in (image, image.flip(-1))])
    weights = F.interpolate(torch.from_numpy(face_mask(len(crop)))[None, None], latents.shape[-2:], mode="area")
    mask = (BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * weights).to(host.device)
    if through_autoencoder:
        image = host.decode_latents(latents[:1]).float().cpu().clamp(-1, 1)
    return Subject(image, latents, mask, prompt, trigger)


@dataclass(frozen=True)
class TrainBatch(TensorBatch):
    """What an iteration looks at, N samples: noisy, target [N, 4, h, w]; timesteps int64 [N]; weights [N, 1, h, w] of
    each place of each sample in the loss, with a sum over samples of about 1; identity_weights [N]; prompts int64 [N],
    the rows of the prompt embeddings, or None where all samples share the first."""

    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    identity_weights: torch.Tensor
    prompts: torch.Tensor | None

    def micro_batches(self, size: int) -> Iterator["TrainBatch"]:
        """As few parts of at most `size` samples as there can be, none much smaller than another."""
        count = len(self.noisy)
        passes = math.ceil(count / size)
        for i in range(passes):
            part = slice(count * i // passes, count * (i + 1) // passes)
            yield self.map(lambda tensor: tensor[part])  # noqa: B023  # called at once


def make_batch(
    host: Host, subject: Subject, size: int, generator: torch.Generator, identity_weight: float = 0.0
) -> TrainBatch:
    """`size` noises of the photo, each to be predicted as in training; the face counts more than what is around it."""
    latents, noise, timesteps = random_samples(host, subject.latents, size, generator)
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = add_noise(latents, noise, alphas_cumprod)
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    places = noisy.new_ones(1, 1, *noisy.shape[2:]) if subject.mask is None else subject.mask / subject.mask.mean()
    weights = places.expand(size, -1, -1, -1) / size
    identity_weights = torch.full_like(weights[:, 0, 0, 0], identity_weight / size)
    return TrainBatch(noisy, target, timesteps, weights, identity_weights, None)


def with_prior(batch: TrainBatch, prior: PriorBatch, prior_weight: float) -> TrainBatch:
    """`batch` and, after it, prior-preservation samples, which shall come out as they would without the LiDB."""
    size = len(prior.noisy)
    weights = torch.full_like(batch.weights[:1], prior_weight / size).expand(size, -1, -1, -1)
    return TrainBatch(
        torch.cat([batch.noisy, prior.noisy]), torch.cat([batch.target, prior.target]),
        torch.cat([batch.timesteps, prior.timesteps]), torch.cat([batch.weights, weights]),
        torch.cat([batch.identity_weights, batch.identity_weights.new_zeros(size)]),
        torch.cat([prior.prompts.new_zeros(len(batch.noisy)), 1 + prior.prompts]),
    )  # fmt: skip
