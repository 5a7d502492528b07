"""The rank-relaxed fast finetune: some iterations that sharpen what the start gave (HyperDreamBooth, section 4.3).

The paper takes 40. Here 80 that see four noises each are better than 40 that see sixteen (docs/training.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..errors import TrainingError
from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB, StackedLiDB
from .captured import Captured, Losses
from .iteration import Iteration, default_micro_batch_size, look_at
from .likeness_term import LikenessTerm
from .style_prior import StylePrior
from .subject import Subject


@dataclass(frozen=True)
class FinetuneOptions:
    """`rank` is the relaxed rank. Each of the `steps` iterations sees `batch` noises of the one photo."""

    steps: int = 80
    rank: int = 2
    batch: int = 4
    lr: float = 0.03
    text: bool = False
    """Train the text encoder's layers too. Off, the text condition is computed once."""
    prior_batch: int = 1
    """So many further samples an iteration keep what style words do, and what is drawn without any prompt
    (`style_prior.py`); 0 leaves it out."""
    prior_weight: float = 0.3
    prior_unprompted: float = 0.5
    """The share of those samples that have no prompt."""
    identity_weight: float | None = None
    """How much it counts that the hypernetwork's recognizers see the person (`likeness_term.py`). None asks them where
    the start is a hypernetwork's that holds some."""
    micro_batch_size: int | None = None
    """How many samples go through the model in one pass; an iteration's gradients are added up. Fewer take less memory.
    None takes `default_micro_batch_size`'s."""


@dataclass(frozen=True)
class Progress:
    """Handed to `on_step` after each iteration. `lidb` is the live one: call `.detached()` to keep it. On a graphics
    card, which runs ahead, `loss` is that of the iteration before."""

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
    likeness: LikenessTerm | None = None,
) -> Finetuned:
    """Train `lidb` on the subject; the model itself stays frozen (call it within `host.frozen()`).

    `likeness` says who is to be seen; without it the diffusion loss teaches alone.

    `should_stop` is asked before each iteration; what was learned until then is returned.
    Raises TrainingError for less than one step, also when interrupted before the first, or when the loss is no number.
    """
    if options.steps < 1:
        raise TrainingError(
            f"{options.steps} steps train nothing: use at least 1, {FinetuneOptions.steps} is the default.", "steps"
        )
    linears, batch, whole = host.linears(), options.batch, lidb
    lidb = lidb.to(host.device)
    prior = None
    if options.prior_batch:
        prior = StylePrior.of(host, subject.prompt, subject.class_prompt, options.prior_unprompted)
    micro_batch_size = options.micro_batch_size or default_micro_batch_size(host, subject.latents)
    lessons = prior.lessons(host, subject, options.prior_batch, generator, batch, micro_batch_size) if prior else None
    prompts = [subject.prompt, *(prior.prompts if prior else ())]
    embeds = None if options.text else _prompt_embeds(host, linears, lidb, prompts)
    trained = _trained(lidb, options.text)
    conditions = (lambda: host.encode_prompts(prompts)) if embeds is None else (lambda: embeds)
    iteration = Iteration(host, linears, trained, conditions, micro_batch_size, options.lr, likeness)
    take = Captured(iteration) if host.capturable and embeds is not None else iteration
    losses = Losses(host.device)
    identity_weight = likeness.weight if likeness else 0.0
    step = 0
    while step < options.steps and not should_stop():
        iteration.set_lr(options.lr * _decay(step, options.steps))
        photo = subject.noisy_batch(host, batch, generator)
        styles = next(lessons) if lessons else None
        loss = take(look_at(host, subject, photo, styles, options.prior_weight, identity_weight))
        step += 1
        value = _checked(losses.read(loss), step)
        on_step(Progress(step, options.steps, value, trained.within(lidb)))
    if step == 0:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    _checked(losses.last(), step)
    return Finetuned(replace(trained.within(lidb).detached(), basis=whole.basis), step)


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


def _checked(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss stopped being a number at step {step}: lower the learning rate, or load the model in full "
            "precision."
        )
    return loss
