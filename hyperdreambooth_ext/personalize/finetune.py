"""The rank-relaxed fast finetune: 40 iterations that sharpen what the start gave (HyperDreamBooth, section 4.3)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import TrainingError
from ..hosts.protocol import Host
from ..hosts.schedule import add_noise, training_target
from ..hypernet.loss import denoising_errors, masked_mean
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB, StackedLiDB
from .style_prior import StyleLesson, StylePrior
from .subject import Subject


@dataclass(frozen=True)
class FinetuneOptions:
    """`rank` is the relaxed rank. Each of the `steps` iterations sees `batch` noises of the one photo; None takes
    `default_batch`'s."""

    steps: int = 40
    rank: int = 2
    batch: int | None = None
    lr: float = 0.03
    text: bool = False
    """Train the text encoder's layers too. Off, the text condition is computed once."""
    styled: int = 2
    """So many further samples an iteration keep the model obeying style words (`style_prior.py`); 0 leaves it out."""
    style_weight: float = 0.1


def default_batch(latents: torch.Tensor) -> int:
    """How many noises an iteration sees: 16 of latents up to 32 × 32 (pictures of 256 pixels), 8 of larger ones, since
    each of those says more and costs more."""
    return 16 if latents.shape[-1] * latents.shape[-2] <= 32 * 32 else 8


@dataclass(frozen=True)
class Progress:
    """Handed to `on_step` after each iteration. `lidb` is the live one: call `.detached()` to keep it."""

    step: int
    steps: int
    loss: float
    lidb: LiDB


@dataclass(frozen=True)
class Finetuned:
    """The sharpened LiDB, on the CPU, and how many iterations it saw: fewer than asked for after an interrupt."""

    lidb: LiDB
    steps: int


def finetune(
    host: Host,
    subject: Subject,
    lidb: LiDB,
    options: FinetuneOptions,
    generator: torch.Generator,
    on_step: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Finetuned:
    """Train `lidb` on the subject; the model itself stays frozen (call it within `host.frozen()`).

    `should_stop` is asked before each iteration; what was learned until then is returned.
    Raises TrainingError for less than one step, also when interrupted before the first, or when the loss is no number.
    """
    if options.steps < 1:
        raise TrainingError(f"{options.steps} steps train nothing: use at least 1, 40 is the default.")
    linears, batch = host.linears(), options.batch or default_batch(subject.latents)
    lidb = lidb.map(lambda tensor: tensor.detach().to(host.device))
    prior = StylePrior.of(host, subject.prompt, subject.class_prompt) if options.styled else None
    lessons = prior.lessons(host, subject, options.styled, generator, at_once=batch) if prior else None
    prompts = [subject.prompt, *(prior.prompts if prior else ())]
    embeds = None if options.text else _prompt_embeds(host, linears, lidb, prompts)
    trained = _trained(lidb, options.text)
    optimizer = torch.optim.AdamW(trained.parameters, lr=options.lr, betas=(0.9, 0.99), weight_decay=0.0)
    step = 0
    while step < options.steps and not should_stop():
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _decay(step, options.steps)
        photo = subject.noisy_batch(host, batch, generator)
        styles = next(lessons) if lessons else None
        with torch.enable_grad(), injected(linears, Applied(trained)):
            conditions = host.encode_prompts(prompts) if embeds is None else embeds
            loss = _loss(host, subject, photo, styles, conditions, options.style_weight)
        gradients = torch.autograd.grad(loss, trained.parameters)
        step += 1
        value = loss.item()
        _check_loss(value, step)
        for tensor, gradient in zip(trained.parameters, gradients, strict=True):
            tensor.grad = gradient
        optimizer.step()
        on_step(Progress(step, options.steps, value, trained.within(lidb)))
    if step == 0:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    return Finetuned(trained.within(lidb).detached(), step)


def _loss(
    host: Host,
    subject: Subject,
    photo: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    styles: StyleLesson | None,
    conditions: torch.Tensor,
    style_weight: float,
) -> torch.Tensor:
    """The diffusion loss of the photo, and, in the same pass, how far styled samples are from what they shall be.

    `conditions` [1 + S, 77, width]: the photo's prompt, then one a style.
    """
    latents, noise, timesteps = photo
    if styles is None:
        condition = conditions[:1].expand(len(latents), -1, -1)
        return masked_mean(denoising_errors(host, latents, noise, timesteps, condition), subject.mask)
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = torch.cat([add_noise(latents, noise, alphas_cumprod), styles.noisy])
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    prompts = torch.cat([styles.styles.new_zeros(len(latents)), 1 + styles.styles])
    predicted = host.predict(noisy, torch.cat([timesteps, styles.timesteps]), conditions[prompts]).float()
    errors = F.mse_loss(predicted, torch.cat([target, styles.wanted]), reduction="none")
    return masked_mean(errors[: len(latents)], subject.mask) + style_weight * errors[len(latents) :].mean()


def _prompt_embeds(host: Host, linears, lidb: LiDB, prompts: list[str]) -> torch.Tensor:
    with torch.no_grad(), injected(linears, Applied(lidb)):
        return host.encode_prompts(prompts)


def _trained(lidb: LiDB, text: bool) -> StackedLiDB:
    """What the optimizer works on. Without `text` the UNet's layers alone: the condition holds the others' part."""
    layers = [layer for layer in lidb.architecture.layers if text or layer.key.startswith("lora_unet_")]
    stacked = StackedLiDB.of(lidb, layers)
    for tensor in stacked.parameters:
        tensor.requires_grad_()
    return stacked


def _decay(step: int, steps: int) -> float:
    """Cosine from 1 to 0.1."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss stopped being a number at step {step}, so nothing was saved: load the model in full precision "
            "or lower the learning rate."
        )
