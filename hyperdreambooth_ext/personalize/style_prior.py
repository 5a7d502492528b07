"""What is kept: what a prompt asks for beside the person, and what the model does without any prompt.

One photo also teaches that every picture is a photo. DreamBooth's answer to the like is prior preservation, with
pictures that are drawn before. Here no picture is needed: for "a sks face, STYLE" the model with the LiDB shall predict
what the frozen model itself predicts for "a face, STYLE".

For no prompt at all it shall predict what the frozen model does, too. That guidance otherwise takes off what was
learned was the idea; that styles come out more often is what was measured (docs/training.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..hosts.protocol import Host
from ..hosts.transfer import sent
from ..sampling.schedule import add_noise
from .subject import Subject

STYLES = ("pencil sketch", "oil painting", "cartoon", "pixel art", "blueprint", "watercolor")
# In nearly clean latents of a photo no style can be asked for any more.
WITHIN = (0.3, 1.0)


@dataclass(frozen=True)
class StylePrior:
    """`prompts` are "a sks face, STYLE", one a style, then the empty one; general [S + 1, 77, width] the conditions of
    "a face, STYLE", and of none. `unprompted` is the share of lessons that take the empty one."""

    prompts: list[str]
    general: torch.Tensor
    unprompted: float = 0.0

    @classmethod
    @torch.no_grad()
    def of(cls, host: Host, prompt: str, class_prompt: str, unprompted: float = 0.0) -> "StylePrior":
        """For "a sks face" and "a face"; to be called while no LiDB is in the model."""
        general = host.encode_prompts([*(f"{class_prompt}, {style}" for style in STYLES), ""])
        return cls([*(f"{prompt}, {style}" for style in STYLES), ""], general, unprompted)

    def lessons(
        self, host: Host, subject: Subject, size: int, generator: torch.Generator, ahead: int, micro_batch_size: int
    ) -> Iterator["StyleLesson"]:
        """Without end, lessons of `size` samples; to be asked for while no LiDB is in the model.

        The frozen model looks at up to `ahead` samples for several iterations to come, since few samples alone use a
        processor badly, and at no more than `micro_batch_size` of them in one pass.
        """
        count = max(1, ahead // size)
        while True:
            yield from self.lesson(host, subject, count * size, generator, micro_batch_size).parts(count)

    @torch.no_grad()
    def lesson(
        self, host: Host, subject: Subject, size: int, generator: torch.Generator, micro_batch_size: int
    ) -> "StyleLesson":
        """`size` samples, each with a style or without prompt; to be called while no LiDB is in the model."""
        unprompted = torch.rand(size, generator=generator) < self.unprompted
        styles = some_styles(size, generator).masked_fill(unprompted, len(STYLES))
        styles = sent(styles, host.device)
        latents, noise, timesteps = subject.noisy_batch(host, size, generator, WITHIN)
        noisy = add_noise(latents, noise, host.alphas_cumprod[timesteps])
        parts = zip(*(tensor.split(micro_batch_size) for tensor in (noisy, timesteps, styles)), strict=True)
        wanted = [host.predict(noisy, at, self.general[of]).float() for noisy, at, of in parts]
        return StyleLesson(noisy, timesteps, styles, torch.cat(wanted))


def some_styles(count: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers of styles, int64 [count]."""
    return torch.randint(0, len(STYLES), (count,), generator=generator)


@dataclass(frozen=True)
class StyleLesson:
    """What the model shall predict with the LiDB in it: noisy, wanted [B, 4, h, w]; timesteps, styles int64 [B], the
    latter numbers of the prior's `prompts`."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    styles: torch.Tensor
    wanted: torch.Tensor

    def parts(self, count: int) -> Iterator["StyleLesson"]:
        """`count` lessons of equal size. The timesteps of a lesson lie in order: each part gets some of all ranges."""
        return (StyleLesson(*(tensor[i::count] for tensor in vars(self).values())) for i in range(count))
