"""What a training step of the hypernetwork looks at, and what it is taught by."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Preserved:
    """Beside the diffusion loss the model with a person's weights shall predict for `prompts` what the frozen one does
    for the conditions `general` [S, 77, width].

    people int64 [S], their places in the batch; noisy [S, 4, h, w]; timesteps [S]; one prompt each. `weight` is that of
    the mean squared difference.
    """

    people: torch.Tensor
    noisy: torch.Tensor
    timesteps: torch.Tensor
    prompts: list[str]
    general: torch.Tensor
    weight: float


@dataclass(frozen=True)
class Described:
    """How the frozen model drew the people of a batch: with the conditions `words` [B, 77, width], away from those of
    `none` [1, 77, width], by this guidance scale."""

    words: torch.Tensor
    none: torch.Tensor
    guidance: float


@dataclass(frozen=True)
class Batch:
    """features [B, N, channels] of one photo a person; latents [B, 4, h, w] of another photo or of the same one;
    prompts that say how that one looks; targets θ [B, layers, a + b] where pre-optimized LiDBs are at hand; the
    recognizer's identities [B, channels] of the people, unit vectors, where it is asked. noise [B, 4, h, w],
    timesteps [B], and `drawing` [D, 4, h, w], the noise that the first D people are drawn from, are made where they are
    not given, and so are `drawn_at`, the timesteps that these drawings pass (see `training.drawn_timesteps`); several
    processes that share a batch are given their parts. `preserved` is left out where it is None, and so is
    `described`."""

    features: torch.Tensor
    latents: torch.Tensor
    prompts: list[str]
    targets: torch.Tensor | None = None
    identities: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None
    drawing: torch.Tensor | None = None
    drawn_at: torch.Tensor | None = None
    preserved: Preserved | None = None
    described: Described | None = None

    def tensors(self) -> list[torch.Tensor]:
        """All that there are, always in the same order."""
        parts = [vars(part).values() for part in (self, self.preserved, self.described) if part is not None]
        values = [value for part in parts for value in part]
        return [value for value in values if isinstance(value, torch.Tensor)]

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """The same with `change(tensor)` in place of every tensor."""
        preserved = self.preserved and _mapped(self.preserved, change)
        described = self.described and _mapped(self.described, change)
        return replace(_mapped(self, change), preserved=preserved, described=described)


def _mapped(values, change: Callable[[torch.Tensor], torch.Tensor]):
    return replace(values, **{k: change(v) for k, v in vars(values).items() if isinstance(v, torch.Tensor)})


@dataclass(frozen=True)
class IdentityLoss:
    """A term beside the diffusion loss: `weight` · (1 − cosine) of who a frozen `recognizer` sees in the clean latents
    that the model's output amounts to, and who it should be. Not in the paper; the idea is PuLID's (arXiv 2404.16022),
    here in latents, where it costs next to nothing.

    In noisy latents of a photo much of who it is can still be seen. `drawn` people a step are therefore also drawn
    from pure noise, as they will be when somebody uses their LiDB, with `prompt` and a few steps of DDIM, and judged in
    the last step, which is somewhere in `drawn_until`, shares of all timesteps; with `drawn_weight`. Where there is a
    `judge` it takes the recognizer's place there.
    """

    recognizer: Callable[[torch.Tensor], torch.Tensor]
    weight: float = 0.1
    drawn: int = 0
    drawn_weight: float = 0.1
    prompt: str = "a sks face"
    drawn_until: tuple[float, float] = (0.3, 0.9)
    judge: Callable[[torch.Tensor], torch.Tensor] | None = None

    def unlike(self, guess: torch.Tensor, identities: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
        """1 − cosine [B] of who is seen in `guess` [B, 4, h, w] and `identities` [B, channels], weighed by how much can
        be seen in it."""
        return (1 - F.cosine_similarity(self.recognizer(guess), identities, dim=-1)) * visible(alphas_cumprod)


@dataclass(frozen=True)
class Lesson:
    """What a step is taught by: α and β of equation 4, and how the diffusion loss is taken.

    `min_snr_gamma` weighs timesteps as in arXiv 2303.09556: where little noise is left, who it is can be seen in the
    latents themselves, and nothing is learned about the weights; None weighs all alike. `timesteps` is the range they
    are drawn from, as shares of all. `mask` [1, 1, h, w] weighs places. `identity` adds its term. `words` weighs how
    far the model is from what the frozen one makes of the words that it drew the person from (`Batch.described`).
    """

    alpha: float = 1.0
    beta: float = 0.0
    min_snr_gamma: float | None = 5.0
    timesteps: tuple[float, float] = (0.0, 1.0)
    mask: torch.Tensor | None = None
    identity: IdentityLoss | None = None
    words: float = 0.0


def visible(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """A weight [B]: where nearly all is noise, clean latents are a guess and count less."""
    return (10 * alphas_cumprod).clamp(max=1)
