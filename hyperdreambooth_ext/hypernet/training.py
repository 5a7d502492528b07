"""One training step of the hypernetwork: many people at once, each denoised with their own predicted weights."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..sampling.guidance import guided
from ..sampling.schedule import add_noise, clean_latents, ddim_step, spread_timesteps
from .hypernetwork import WeightDecoder
from .lesson import Batch, Described, IdentityLoss, Lesson, Preserved, visible
from .loss import compared, hypernetwork_loss

# Drawings walk down the timesteps in steps of at most this share of all.
DRAWN_STEP = 0.2


def training_losses(
    host: Host, decoder: WeightDecoder, batch: Batch, generator: torch.Generator, lesson: Lesson = Lesson()
) -> dict[str, torch.Tensor]:
    """ "loss" to minimize and its parts; where people were drawn, "drawings" are the clean latents [D, 4, h, w] that
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
        output = guided(unsaid, output, described.guidance)
        said = clean_latents(noisy, output, alphas_cumprod, host.prediction_type)
    return ((guess - said).square().mean((1, 2, 3)) * visible(alphas_cumprod)).mean()


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
    seen = (identity.judge or identity.recognizer)(drawings)
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
