"""One training step of the hypernetwork: many identities at once, each denoised with their own predicted weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..sampling.recorded import TensorBatch
from ..sampling.schedule import add_noise, clean_latents, spread_timesteps, step_towards, training_target
from .hypernetwork import WeightDecoder
from .loss import IdentityLoss, LossConfig, min_snr_weights

# Samples walk down the timesteps in steps of at most this share of all.
_MAX_STEP = 0.2


@dataclass(frozen=True)
class PriorSamples(TensorBatch):
    """Prior preservation: the model with an identity's weights shall predict for `prompts` what the frozen one does for
    `class_embeds` [S, 77, width].

    rows int64 [S], the identities' places in the batch; noisy [S, 4, h, w]; timesteps [S]; `weight` is that of the mean
    squared difference.
    """

    rows: torch.Tensor
    noisy: torch.Tensor
    timesteps: torch.Tensor
    prompts: list[str]
    class_embeds: torch.Tensor
    weight: float


@dataclass(frozen=True)
class Batch(TensorBatch):
    """features [B, N, channels] of one photo of each identity; latents [B, 4, h, w] of another or of the same photo;
    prompts that say how that one looks; targets θ [B, layers, a + b] where pre-optimized LiDBs are at hand; identities
    [B, channels], unit vectors, for the identity loss.

    noise [B, 4, h, w], timesteps [B], `sample_noise` [S, 4, h, w], which the first S identities are sampled from, and
    `sample_timesteps`, which these samples pass (see `random_sample_timesteps`), are made where they are not given;
    several processes that share a batch are given their parts.
    """

    features: torch.Tensor
    latents: torch.Tensor
    prompts: list[str]
    targets: torch.Tensor | None = None
    identities: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None
    sample_noise: torch.Tensor | None = None
    sample_timesteps: torch.Tensor | None = None
    prior: PriorSamples | None = None


def training_losses(
    host: Host, decoder: WeightDecoder, batch: Batch, generator: torch.Generator, config: LossConfig = LossConfig()
) -> dict[str, torch.Tensor]:
    """ "loss" to minimize and its parts: α · (diffusion loss and what stands beside it) + β · ‖θ̂ − θ‖², summed over a
    layer's numbers and averaged over layers and samples. Call within `host.frozen()`."""
    theta = decoder(batch.features)
    losses, weighted = {"size": theta.detach().square().mean()}, []
    if config.alpha:
        terms = _denoising_terms(host, decoder, theta, batch, generator, config)
        identity = config.identity
        if identity is not None and identity.samples and batch.identities is not None:
            samples = _sampled(host, decoder, theta, batch, generator, identity)
            terms["sampled_identity"] = identity.sampled_weight, identity.of_samples(samples, batch.identities)
        weighted = [config.alpha * weight * term for weight, term in terms.values()]
        losses |= {name: term.detach() for name, (_, term) in terms.items()}
    if config.beta:
        assert batch.targets is not None, "beta > 0 needs targets"
        weighted.append(config.beta * (theta - batch.targets).square().sum(-1).mean())
    losses["loss"] = torch.stack(weighted).sum()
    return losses


def _denoising_terms(
    host: Host, decoder: WeightDecoder, theta: torch.Tensor, batch: Batch, generator: torch.Generator,
    config: LossConfig,
) -> dict[str, tuple[float, torch.Tensor]]:  # fmt: skip
    """What one pass over noisy latents is trained on, each term with its weight: diffusion loss, identity loss, prior
    preservation."""
    latents, noise, timesteps = batch.latents, batch.noise, batch.timesteps
    if noise is None or timesteps is None:
        noise, timesteps = random_noise(host, latents.shape, generator)
    noise, timesteps = noise.to(latents), timesteps.to(host.device)
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = add_noise(latents, noise, alphas_cumprod)
    predicted, prior_predicted = _predicted(host, decoder, theta, noisy, timesteps, batch)
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    errors = F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))
    terms = {"diffusion": (1.0, (errors * min_snr_weights(alphas_cumprod)).mean())}
    if batch.prior is not None:
        prior = batch.prior
        with torch.no_grad():
            without = host.predict(prior.noisy, prior.timesteps, prior.class_embeds).float()
        terms["prior"] = prior.weight, F.mse_loss(prior_predicted, without)
    if config.identity is not None and batch.identities is not None:
        guess = clean_latents(noisy, predicted, alphas_cumprod, host.prediction_type)
        identity_losses = config.identity.per_sample(guess, batch.identities, alphas_cumprod)
        terms["identity"] = config.identity.weight, identity_losses.mean()
    return terms


def _predicted(
    host: Host, decoder: WeightDecoder, theta: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's output for the batch, each with their own weights, and for the prior-preservation samples."""
    prompts, prior = batch.prompts, batch.prior
    if prior is not None:
        theta = torch.cat([theta, theta[prior.rows]])
        noisy, timesteps = torch.cat([noisy, prior.noisy]), torch.cat([timesteps, prior.timesteps])
        prompts = [*prompts, *prior.prompts]
    with injected(host.linears(), Applied(decoder.as_lidb(theta))):
        predicted = host.predict(noisy, timesteps, host.encode_prompts(prompts)).float()
    return predicted[: len(batch.latents)], predicted[len(batch.latents) :]


def _sampled(
    host: Host, decoder: WeightDecoder, theta: torch.Tensor, batch: Batch, generator: torch.Generator,
    identity: IdentityLoss,
) -> torch.Tensor:  # fmt: skip
    """A sample of each of the first identities: clean latents, as the last step sees them; only it has gradients."""
    noise, timesteps = batch.sample_noise, batch.sample_timesteps
    if noise is None:
        noise = torch.randn(identity.samples, *batch.latents.shape[1:], generator=generator)
    if timesteps is None:
        timesteps = random_sample_timesteps(identity, len(host.alphas_cumprod), generator)
    latents, timesteps, count = noise.to(batch.latents), timesteps.to(host.device), len(noise)
    alphas, prompts = host.alphas_cumprod[timesteps], [identity.prompt] * count
    with injected(host.linears(), Applied(decoder.as_lidb(theta[:count]))):
        with torch.no_grad():
            prompt_embeds = host.encode_prompts(prompts)
            for now, following in pairwise(range(len(timesteps))):
                output = host.predict(latents, timesteps[now].expand(count), prompt_embeds)
                clean = clean_latents(latents, output, alphas[now, None], host.prediction_type)
                latents = step_towards(clean, latents, alphas[now], alphas[following])
        output = host.predict(latents, timesteps[-1].expand(count), host.encode_prompts(prompts))
    return clean_latents(latents, output, alphas[-1:].expand(count), host.prediction_type)


def random_sample_timesteps(identity: IdentityLoss, timesteps: int, generator: torch.Generator) -> torch.Tensor:
    """The timesteps that samples pass, int64 on the CPU, down to a place somewhere in `sampled_until`."""
    last = float(torch.empty(()).uniform_(*identity.sampled_until, generator=generator))
    return torch.tensor(sample_timesteps(last, timesteps))


def sample_timesteps(last: float, timesteps: int) -> list[int]:
    """From pure noise down to the share `last` of all timesteps, in steps of at most a fifth of them."""
    steps = math.ceil((1 - last) / _MAX_STEP)
    return [round(timesteps * (1 - (1 - last) * i / max(steps, 1))) - 1 for i in range(steps + 1)]


def random_noise(
    host: Host, shape: Sequence[int], generator: torch.Generator, within: tuple[float, float] = (0.0, 1.0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of this `shape` [B, 4, h, w] and timesteps [B] for a batch, on the CPU; `within` are shares of all."""
    noise = torch.randn(*shape, generator=generator)
    timesteps = spread_timesteps(shape[0], len(host.alphas_cumprod), generator, within)
    # In no order: of several processes none shall have the noisy ones alone, or its log tells of those.
    return noise, timesteps[torch.randperm(len(timesteps), generator=generator)]
