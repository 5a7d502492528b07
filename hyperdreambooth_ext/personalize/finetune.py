"""The rank-relaxed fast finetune: 40 iterations that sharpen what the start gave (HyperDreamBooth, section 4.3)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import TrainingError
from ..hosts.protocol import Host
from ..hypernet.loss import denoising_errors, masked_mean
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB
from .subject import Subject


@dataclass(frozen=True)
class FinetuneOptions:
    """`rank` is the relaxed rank. `batch` noises of the one photo are seen in each of the `steps` iterations."""

    steps: int = 40
    rank: int = 2
    batch: int = 8
    lr: float = 0.03
    text: bool = False
    """Train the text encoder's layers too. Off, the text condition is computed once."""


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
    linears = host.linears()
    lidb = lidb.map(lambda tensor: tensor.detach().to(host.device))
    embeds = None if options.text else _prompt_embeds(host, linears, lidb, subject)
    trained = _Trained(lidb, options.text)
    optimizer = torch.optim.AdamW([trained.numbers], lr=options.lr, betas=(0.9, 0.99), weight_decay=0.0)
    step = 0
    while step < options.steps and not should_stop():
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _decay(step, options.steps)
        latents, noise, timesteps = subject.noisy_batch(host, options.batch, generator)
        lidb = trained.lidb()
        # The text encoder's part is in the condition already when that is computed once.
        with torch.enable_grad(), injected(linears, Applied(lidb, text=float(options.text))):
            condition = host.encode_prompts([subject.prompt]) if embeds is None else embeds
            condition = condition.expand(len(latents), -1, -1)
            loss = masked_mean(denoising_errors(host, latents, noise, timesteps, condition), subject.mask)
        (trained.numbers.grad,) = torch.autograd.grad(loss, trained.numbers)
        step += 1
        value = loss.item()
        _check_loss(value, step)
        optimizer.step()
        on_step(Progress(step, options.steps, value, lidb))
    if step == 0:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    return Finetuned(lidb.detached(), step)


def _prompt_embeds(host: Host, linears, lidb: LiDB, subject: Subject) -> torch.Tensor:
    with torch.no_grad(), injected(linears, Applied(lidb)):
        return host.encode_prompts([subject.prompt])


class _Trained:
    """What the optimizer works on: the numbers of a LiDB in one tensor, not in hundreds of small ones."""

    def __init__(self, lidb: LiDB, text: bool) -> None:
        self._fixed = lidb
        self._keys = [layer.key for layer in lidb.architecture.layers if text or layer.key.startswith("lora_unet_")]
        parts = [of[key] for of in (lidb.a_train, lidb.b_train) for key in self._keys]
        self._shapes = [part.shape for part in parts]
        self.numbers = torch.cat([part.flatten() for part in parts]).requires_grad_()

    def lidb(self) -> LiDB:
        """The LiDB as it is now; gradients flow to `numbers`, and what the optimizer changes there shows in it."""
        with torch.enable_grad():
            flat = self.numbers.split([shape.numel() for shape in self._shapes])
        parts = [part.view(shape) for part, shape in zip(flat, self._shapes, strict=True)]
        count = len(self._keys)
        a_train = {**self._fixed.a_train, **dict(zip(self._keys, parts[:count], strict=True))}
        b_train = {**self._fixed.b_train, **dict(zip(self._keys, parts[count:], strict=True))}
        return LiDB(self._fixed.architecture, self._fixed.basis, a_train, b_train)


def _decay(step: int, steps: int) -> float:
    """Cosine from 1 to 0.1."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss stopped being a number at step {step}, so nothing was saved: load the model in full precision "
            "or lower the learning rate."
        )
