"""One training step of the hypernetwork: many people at once, each denoised with their own predicted weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..hosts.schedule import add_noise, clean_latents, ddim_step, spread_timesteps
from ..lidb.injection import Applied, injected
from .hypernetwork import WeightDecoder
from .loss import compared, hypernetwork_loss

# Drawings walk down the timesteps in steps of at most this share of all.
DRAWN_STEP = 0.2


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
    prompts that say how that one looks; targets θ [B, layers, a + b] where pre-optimised LiDBs are at hand; the
    recogniser's identities [B, channels] of the people, unit vectors, where it is asked. noise [B, 4, h, w],
    timesteps [B], and `drawing` [D, 4, h, w], the noise that the first D people are drawn from, are made where they are
    not given, and so are `drawn_at`, the timesteps that these drawings pass (see `drawn_timesteps`); several
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
    """A term beside the diffusion loss: `weight` · (1 − cosine) of who a frozen `recogniser` sees in the clean latents
    that the model's output amounts to, and who it should be. Not in the paper; the idea is PuLID's (arXiv 2404.16022),
    here in latents, where it costs next to nothing.

    In noisy latents of a photo much of who it is can still be seen. `drawn` people a step are therefore also drawn
    from pure noise, as they will be when somebody uses their LiDB, with `prompt` and a few steps of DDIM, and judged in
    the last step, which is somewhere in `drawn_until`, shares of all timesteps; with `drawn_weight`. Where there is a
    `judge` it takes the recogniser's place there.
    """

    recogniser: Callable[[torch.Tensor], torch.Tensor]
    weight: float = 0.1
    drawn: int = 0
    drawn_weight: float = 0.1
    prompt: str = "a sks face"
    drawn_until: tuple[float, float] = (0.3, 0.9)
    judge: Callable[[torch.Tensor], torch.Tensor] | None = None

    def unlike(self, guess: torch.Tensor, identities: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
        """1 − cosine [B] of who is seen in `guess` [B, 4, h, w] and `identities` [B, channels], weighed by how much can
        be seen in it."""
        return (1 - F.cosine_similarity(self.recogniser(guess), identities, dim=-1)) * visible(alphas_cumprod)


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


def training_losses(
    host: Host, decoder: WeightDecoder, batch: Batch, generator: torch.Generator, lesson: Lesson = Lesson()
) -> dict[str, torch.Tensor]:
    """ "loss" to minimise and its parts; where people were drawn, "drawings" are the clean latents [D, 4, h, w] that
    were judged. Call within `host.frozen()`."""
    theta = decoder(batch.features)
    losses, diffusion = {"size": theta.detach().square().mean()}, None
    if lesson.alpha:
        terms = _noisy(host, decoder, theta, batch, generator, lesson)
        identity = lesson.identity
        if identity is not None and identity.drawn and batch.identities is not None:
            drawings = _drawn(host, decoder, theta, batch, generator, identity)
            terms["drawn"] = identity.drawn_weight, _unlike(drawings, batch.identities, identity)
            losses["drawings"] = drawings.detach()
        diffusion = torch.stack([weight * term for weight, term in terms.values()]).sum()
        losses |= {name: term.detach() for name, (_, term) in terms.items()}
    losses["loss"] = hypernetwork_loss(diffusion, theta, batch.targets, lesson.alpha, lesson.beta)
    return losses


def _noisy(
    host: Host,
    decoder: WeightDecoder,
    theta: torch.Tensor,
    batch: Batch,
    generator: torch.Generator,
    lesson: Lesson,
) -> dict[str, tuple[float, torch.Tensor]]:
    """What one pass over noisy latents teaches, each with its weight: the diffusion loss, who is not seen, how far the
    model is from what words say, and how far what is to be preserved was changed."""
    latents = batch.latents
    noise, timesteps = batch.noise, batch.timesteps
    if noise is None or timesteps is None:
        noise, timesteps = drawn_noise(host, latents.shape, generator, lesson)
    noise, timesteps = noise.to(latents), timesteps.to(host.device)
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = add_noise(latents, noise, alphas_cumprod)
    predicted, kept = _predicted(host, decoder, theta, noisy, timesteps, batch)
    errors, guess = compared(host, latents, noise, timesteps, noisy, predicted)
    if lesson.mask is not None:
        errors = errors * (lesson.mask / lesson.mask.mean())
    errors = errors.mean((1, 2, 3))
    if lesson.min_snr_gamma is not None:
        errors = errors * min_snr_weights(alphas_cumprod, lesson.min_snr_gamma)
    terms = {"diffusion": (1.0, errors.mean())}
    if batch.preserved is not None:
        terms["changed"] = batch.preserved.weight, F.mse_loss(kept, _frozen(host, batch.preserved))
    if lesson.identity is not None and batch.identities is not None:
        terms["unlike"] = lesson.identity.weight, lesson.identity.unlike(guess, batch.identities, alphas_cumprod).mean()
    if lesson.words and batch.described is not None:
        terms["words"] = lesson.words, _otherwise_than_said(host, guess, noisy, timesteps, batch.described)
    return terms


def _otherwise_than_said(
    host: Host, guess: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, described: Described
) -> torch.Tensor:
    """How far the clean latents that the model with a person's weights amounts to, its `guess`, are from those that
    the frozen model sees in `noisy` when it is told in words who it is."""
    alphas_cumprod = host.alphas_cumprod[timesteps]
    with torch.no_grad():
        output = host.predict(noisy, timesteps, described.words).float()
        unsaid = host.predict(noisy, timesteps, described.none.expand(len(noisy), -1, -1)).float()
        output = unsaid + described.guidance * (output - unsaid)
        said = clean_latents(noisy, output, alphas_cumprod, host.prediction_type)
    return ((guess - said).square().mean((1, 2, 3)) * visible(alphas_cumprod)).mean()


def visible(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """A weight [B]: where nearly all is noise, clean latents are a guess and count less."""
    return (10 * alphas_cumprod).clamp(max=1)


@torch.no_grad()
def _frozen(host: Host, preserved: Preserved) -> torch.Tensor:
    """What the model without anybody's weights predicts."""
    return host.predict(preserved.noisy, preserved.timesteps, preserved.general).float()


def _predicted(
    host: Host, decoder: WeightDecoder, theta: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's output for the batch, each with their own weights, and for what is to be preserved."""
    prompts, more = batch.prompts, batch.preserved
    if more is not None:
        theta = torch.cat([theta, theta[more.people]])
        noisy, timesteps = torch.cat([noisy, more.noisy]), torch.cat([timesteps, more.timesteps])
        prompts = [*prompts, *more.prompts]
    with injected(host.linears(), Applied(decoder.as_lidb(theta))):
        predicted = host.predict(noisy, timesteps, host.encode_prompts(prompts)).float()
    return predicted[: len(batch.latents)], predicted[len(batch.latents) :]


def _unlike(drawings: torch.Tensor, identities: torch.Tensor, identity: IdentityLoss) -> torch.Tensor:
    """1 − cosine of who is seen in the `drawings` of the first people, and who they are."""
    seen = (identity.judge or identity.recogniser)(drawings)
    return (1 - F.cosine_similarity(seen, identities[: len(drawings)], dim=-1)).mean()


def _drawn(
    host: Host,
    decoder: WeightDecoder,
    theta: torch.Tensor,
    batch: Batch,
    generator: torch.Generator,
    identity: IdentityLoss,
) -> torch.Tensor:
    """A drawing of each of the first people: clean latents, as the last step sees them."""
    noise = batch.drawing
    if noise is None:
        noise = torch.randn(identity.drawn, *batch.latents.shape[1:], generator=generator)
    latents = noise.to(batch.latents)
    count = len(latents)
    timesteps = batch.drawn_at
    if timesteps is None:
        timesteps = drawn_timesteps(identity, len(host.alphas_cumprod), generator)
    timesteps = timesteps.to(host.device)
    alphas, passes = host.alphas_cumprod[timesteps], range(len(timesteps))
    with injected(host.linears(), Applied(decoder.as_lidb(theta[:count]))):
        with torch.no_grad():
            prompt_embeds = host.encode_prompts([identity.prompt] * count)
            for now, following in pairwise(passes):
                output = host.predict(latents, timesteps[now].expand(count), prompt_embeds)
                latents = ddim_step(latents, output, alphas[now], alphas[following], host.prediction_type)
        output = host.predict(latents, timesteps[-1].expand(count), host.encode_prompts([identity.prompt] * count))
    return clean_latents(latents, output, alphas[-1:].expand(count), host.prediction_type)


def drawn_timesteps(identity: IdentityLoss, timesteps: int, generator: torch.Generator) -> torch.Tensor:
    """The timesteps that drawings pass, int64 on the CPU, down to a place somewhere in `drawn_until`."""
    last = float(torch.empty(()).uniform_(*identity.drawn_until, generator=generator))
    return torch.tensor(drawing_timesteps(last, timesteps))


def drawing_timesteps(last: float, timesteps: int) -> list[int]:
    """From pure noise down to the share `last` of all timesteps, in steps of at most DRAWN_STEP."""
    steps = math.ceil((1 - last) / DRAWN_STEP)
    return [round(timesteps * (1 - (1 - last) * i / max(steps, 1))) - 1 for i in range(steps + 1)]


def drawn_noise(
    host: Host, shape: Sequence[int], generator: torch.Generator, lesson: Lesson
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of this `shape` [B, 4, h, w] and timesteps [B] for a whole batch, on the CPU."""
    noise = torch.randn(*shape, generator=generator)
    timesteps = spread_timesteps(shape[0], len(host.alphas_cumprod), generator, lesson.timesteps)
    # In no order: of several processes none shall have the noisy ones alone, or its log tells of those.
    return noise, timesteps[torch.randperm(len(timesteps), generator=generator)]


def min_snr_weights(alphas_cumprod: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """min(γ / SNR, 1) for `alphas_cumprod` [B] at the timesteps (arXiv 2303.09556, for noise prediction)."""
    return (gamma * (1 - alphas_cumprod) / alphas_cumprod).clamp(max=1)
