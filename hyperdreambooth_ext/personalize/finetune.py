"""The rank-relaxed fast finetune: some iterations that sharpen what the start gave (HyperDreamBooth, section 4.3).

The paper takes 40. Here 80 that see four noises each are better than 40 that see sixteen (docs/method.md).
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import TrainingError, UserError
from ..hosts.protocol import Host
from ..hosts.transfer import to_cpu_async
from ..hypernet.hypernetwork import Hypernetwork
from ..hypernet.loss import IdentityLoss
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB, StackedLiDB
from ..sampling.recorded import Recorded
from ..sampling.schedule import clean_latents
from .batch import Subject, TrainBatch, make_batch, with_prior
from .prior_preservation import PriorPreservation, class_prompt

# Of 0.1 and 0.4 the better (docs/method.md).
IDENTITY_WEIGHT = 0.1
# Of the free memory of a graphics card so much may be filled, by so many numbers for each place of a sample's latents:
# SD 1.5 keeps 1.6 GB of a sample at 512 pixels for the backward pass in 16 bits (`benchmarks.full_size`).
_MEMORY_SHARE, _NUMBERS_A_PLACE = 0.75, 0.2e6
_ALL = 1 << 16


@dataclass(frozen=True)
class FinetuneOptions:
    """`rank` is the relaxed rank. Each of the `steps` iterations sees `batch` noises of the one photo."""

    steps: int = 80
    rank: int = 2
    batch: int = 4
    lr: float = 0.03
    text: bool = False
    """Train the text encoder's layers too. Off, the prompts are encoded once."""
    prior_batch: int = 1
    """Prior-preservation samples an iteration (`prior_preservation.py`); 0 leaves them out."""
    prior_weight: float = 0.3
    prior_unprompted: float = 0.5
    """The share of those samples that have no prompt."""
    identity_weight: float | None = None
    """The weight of the identity loss. None takes IDENTITY_WEIGHT where the start is a hypernetwork's that holds latent
    identity networks, else 0."""
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


@dataclass(frozen=True)
class Identity:
    """Who shall be seen in what the model makes of the noisy photo: not in the paper; the identity loss of the
    hypernetwork's training, here for the one photo. `vector` [1, 128], a unit vector on the model's device."""

    loss: IdentityLoss
    vector: torch.Tensor

    @classmethod
    def of(cls, host: Host, hypernetwork: Hypernetwork | None, image: torch.Tensor) -> "Identity":
        """For the face `image` [1, 3, S, S] in [-1, 1]. Raises UserError when the hypernetwork has no latent
        identity networks."""
        if hypernetwork is None or hypernetwork.identity_net is None:
            raise UserError("This hypernetwork holds no recognizers: use another, or an identity weight of 0.")
        # A copy: the hypernetwork stays where it is.
        identity_net = copy.deepcopy(hypernetwork.identity_net).to(host.device)
        return cls(IdentityLoss(identity_net), hypernetwork.identities(image).to(host.device))

    def per_sample(self, guess: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
        """1 − cosine [N] of who is seen in clean latents `guess` [N, 4, h, w] and the person; less where nearly all
        was noise."""
        return self.loss.per_sample(guess.float(), self.vector, alphas_cumprod)


@dataclass(frozen=True)
class Objective:
    """The loss of a batch while a LiDB is in the model. `cond` gives the prompts' embeddings [1 + S, 77, width] then,
    the subject's first."""

    host: Host
    linears: Mapping[str, nn.Linear]
    cond: Callable[[], torch.Tensor]
    micro_batch_size: int
    identity: Identity | None = None

    def gradients(
        self, lidb: LiDB | StackedLiDB, parameters: Sequence[torch.Tensor], batch: TrainBatch
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss of `batch` with `lidb` in the model, and its gradients, summed over the micro-batches."""
        losses, gradients = [], [torch.zeros_like(parameter) for parameter in parameters]
        for part in batch.micro_batches(self.micro_batch_size):
            with torch.enable_grad(), injected(self.linears, Applied(lidb)):
                loss = self._loss(part)
            torch._foreach_add_(gradients, torch.autograd.grad(loss, parameters))
            losses.append(loss.detach())
        return torch.stack(losses).sum(), gradients

    def _loss(self, batch: TrainBatch) -> torch.Tensor:
        cond, host = self.cond(), self.host
        # `expand`ed, the changed layers look at it once for all samples.
        prompts = cond[:1].expand(len(batch.noisy), -1, -1) if batch.prompts is None else cond[batch.prompts]
        predicted = host.predict(batch.noisy, batch.timesteps, prompts).float()
        errors = F.mse_loss(predicted, batch.target, reduction="none") * batch.weights
        denoising = errors.mean((1, 2, 3)).sum()
        if self.identity is None:
            return denoising
        alphas_cumprod = host.alphas_cumprod[batch.timesteps]
        guess = clean_latents(batch.noisy, predicted, alphas_cumprod, host.prediction_type)
        return denoising + (batch.identity_weights * self.identity.per_sample(guess, alphas_cumprod)).sum()


class OptimizerStep:
    """Called with a batch: one step down the gradient, and the loss. Nothing here waits for the device."""

    def __init__(self, objective: Objective, trained: StackedLiDB, lr: float) -> None:
        self._objective, self._trained = objective, trained
        self._on_gpu = trained.parameters[0].is_cuda
        # On a graphics card the rate lies there too: a recorded step reads it, and one kernel moves all parameters.
        rate = torch.tensor(lr, device=trained.parameters[0].device) if self._on_gpu else lr
        self._optimizer = torch.optim.AdamW(
            trained.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0,
            fused=self._on_gpu or None, capturable=self._on_gpu,
        )  # fmt: skip

    def set_lr(self, lr: float) -> None:
        """The rate of the steps to come."""
        for group in self._optimizer.param_groups:
            if self._on_gpu:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def __call__(self, batch: TrainBatch) -> torch.Tensor:
        parameters = self._trained.parameters
        loss, gradients = self._objective.gradients(self._trained, parameters, batch)
        for tensor, gradient in zip(parameters, gradients, strict=True):
            tensor.grad = gradient
        self._optimizer.step()
        return loss


def finetune(
    host: Host,
    subject: Subject,
    lidb: LiDB,
    options: FinetuneOptions,
    generator: torch.Generator,
    on_step: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    identity: Identity | None = None,
    done: int = 0,
) -> Finetuned:
    """Train `lidb` on the subject; the model itself stays frozen (call it within `host.frozen()`).

    `identity` says who is to be seen, with the options' `identity_weight`; without it the diffusion loss teaches alone.
    `should_stop` is asked before each iteration; what was learned until then is returned. `done`: so many iterations
    `lidb` has seen already, when an interrupted finetune goes on.

    Raises TrainingError for less than one step, also when interrupted before the first, or when the loss is no number.
    """
    if options.steps < 1:
        raise TrainingError(f"{options.steps} steps train nothing: use at least 1.", "steps")
    basis, lidb = lidb.basis, lidb.to(host.device)
    micro_batch_size = options.micro_batch_size or default_micro_batch_size(host, subject.latents)
    prompts, prior_batches = [subject.prompt], None
    if options.prior_batch:
        anybody = class_prompt(subject.prompt, subject.trigger)
        prior = PriorPreservation.of(host, subject.prompt, anybody, options.prior_unprompted)
        prompts += prior.prompts
        prior_batches = prior.batches(
            host, subject.latents, options.prior_batch, generator, options.batch, micro_batch_size
        )  # fmt: skip
    trained, cond = _trained(lidb, options.text), _cond(host, lidb, prompts, options.text)
    objective = Objective(host, host.linears(), cond, micro_batch_size, identity)
    optimizer_step = OptimizerStep(objective, trained, options.lr)
    take = Recorded(optimizer_step) if host.capturable and not options.text else optimizer_step
    identity_weight = IDENTITY_WEIGHT if options.identity_weight is None else options.identity_weight
    step, loss_before = done, None
    while step < options.steps and not should_stop():
        optimizer_step.set_lr(options.lr * _decay(step, options.steps))
        batch = make_batch(host, subject, options.batch, generator, identity_weight)
        if prior_batches:
            batch = with_prior(batch, next(prior_batches), options.prior_weight)
        loss = to_cpu_async(take(batch))
        step += 1
        # A graphics card is never idle while somebody waits for a number.
        known = loss_before if loss_before and trained.parameters[0].is_cuda else loss
        on_step(Progress(step, options.steps, _checked(known(), step), trained.within(lidb)))
        loss_before = loss
    if loss_before is None:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    _checked(loss_before(), step)
    return Finetuned(replace(trained.within(lidb).detached(), basis=basis), step)


def default_micro_batch_size(host: Host, latents: torch.Tensor) -> int:
    """How many samples go through the model in one pass: all of latents up to 32 × 32; of larger ones what the free
    memory of a graphics card takes, and 2 on a processor."""
    places = latents.shape[-1] * latents.shape[-2]
    if places <= 32 * 32:
        return _ALL
    if not latents.is_cuda:
        return 2
    free, _ = torch.cuda.mem_get_info(latents.device)
    kept = torch.cuda.memory_reserved(latents.device) - torch.cuda.memory_allocated(latents.device)
    return max(1, int(_MEMORY_SHARE * (free + kept) / (_NUMBERS_A_PLACE * host.dtype.itemsize * places)))


def _cond(host: Host, lidb: LiDB, prompts: list[str], text: bool) -> Callable[[], torch.Tensor]:
    """The prompts' embeddings: with `text` computed anew in each iteration, else once, with `lidb` in the model."""
    if text:
        return lambda: host.encode_prompts(prompts)
    with torch.no_grad(), injected(host.linears(), Applied(lidb)):
        encoded = host.encode_prompts(prompts)
    return lambda: encoded


def _trained(lidb: LiDB, text: bool) -> StackedLiDB:
    """What the optimizer works on. Without `text` the UNet's layers alone: the embeddings hold the others' part."""
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
        remedy = "lower the learning rate, or load the model in full precision"
        raise TrainingError(f"The loss stopped being a number at step {step}: {remedy}.")
    return loss
