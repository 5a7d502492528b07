"""Prior preservation: what a prompt asks for beside the person, and what the model does without any prompt.

One photo also teaches that every picture is a photo. DreamBooth (arXiv 2208.12242) keeps the class with pictures that
are sampled before. Here no picture is needed: for "a sks face, STYLE" the model with the LiDB shall predict what the
frozen model itself predicts for "a face, STYLE".

For no prompt at all it shall predict what the frozen model does, too. That guidance otherwise takes off what was
learned was the idea; that styles come out more often is what was measured (docs/method.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..hosts.protocol import Host
from ..hosts.transfer import to_device_async
from ..hypernet.config import DEFAULT_TRIGGER
from ..sampling.schedule import add_noise, random_samples

STYLES = ("pencil sketch", "oil painting", "cartoon", "pixel art", "blueprint", "watercolor")
# In nearly clean latents of a photo no style can be asked for any more.
WITHIN = (0.3, 1.0)


def class_prompt(prompt: str, trigger: str = DEFAULT_TRIGGER) -> str:
    """The prompt of anybody: "a face" for "a sks face"."""
    return " ".join(word for word in prompt.split() if word != trigger)


@dataclass(frozen=True)
class PriorBatch:
    """What the model shall predict with the LiDB in it: noisy, target [B, 4, h, w]; timesteps int64 [B]; prompts int64
    [B], places in the prior's `prompts`."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    prompts: torch.Tensor
    target: torch.Tensor

    def split(self, count: int) -> Iterator["PriorBatch"]:
        """`count` batches of equal size. The timesteps of a batch lie in order: each part gets some of all ranges."""
        return (PriorBatch(*(tensor[i::count] for tensor in vars(self).values())) for i in range(count))


@dataclass(frozen=True)
class PriorPreservation:
    """`prompts` are "a sks face, STYLE", one a style, then the empty one; class_cond [S + 1, 77, width] the
    embeddings of "a face, STYLE", and of none. `unprompted` is the share of samples that take the empty one."""

    prompts: list[str]
    class_cond: torch.Tensor
    unprompted: float = 0.0

    @classmethod
    @torch.no_grad()
    def of(cls, host: Host, prompt: str, class_prompt: str, unprompted: float = 0.0) -> "PriorPreservation":
        """For "a sks face" and "a face"; to be called while no LiDB is in the model."""
        class_cond = host.encode_prompts([*(f"{class_prompt}, {style}" for style in STYLES), ""])
        return cls([*(f"{prompt}, {style}" for style in STYLES), ""], class_cond, unprompted)

    def batches(
        self, host: Host, latents: torch.Tensor, size: int, generator: torch.Generator, ahead: int,
        micro_batch_size: int,
    ) -> Iterator[PriorBatch]:  # fmt: skip
        """Without end, batches of `size` samples of `latents`; to be asked for while no LiDB is in the model.

        The frozen model looks at up to `ahead` samples for several iterations to come, since few samples alone use a
        processor badly.
        """
        count = max(1, ahead // size)
        while True:
            yield from self.batch(host, latents, count * size, generator, micro_batch_size).split(count)

    @torch.no_grad()
    def batch(
        self, host: Host, latents: torch.Tensor, size: int, generator: torch.Generator, micro_batch_size: int
    ) -> PriorBatch:
        """`size` samples, each with a style or without prompt; to be called while no LiDB is in the model."""
        unprompted = torch.rand(size, generator=generator) < self.unprompted
        styles = torch.randint(0, len(STYLES), (size,), generator=generator).masked_fill(unprompted, len(STYLES))
        prompts = to_device_async(styles, host.device)
        latents, noise, timesteps = random_samples(host, latents, size, generator, WITHIN)
        noisy = add_noise(latents, noise, host.alphas_cumprod[timesteps])
        parts = zip(*(tensor.split(micro_batch_size) for tensor in (noisy, timesteps, prompts)), strict=True)
        target = [host.predict(noisy, at, self.class_cond[of]).float() for noisy, at, of in parts]
        return PriorBatch(noisy, timesteps, prompts, torch.cat(target))
