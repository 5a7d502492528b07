"""The rank-relaxed fast finetune: some iterations that sharpen what the start gave (HyperDreamBooth, section 4.3).

The paper takes 40. Here 80 that see four noises each are better than 40 that see sixteen (docs/method.md).
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .optimizer import ScaledAdamW, longest_gain, relative_steps, weight_norms
from .prior_preservation import PriorPreservation, class_prompt

# Of 0.1 and 0.4 the better (docs/method.md).
IDENTITY_WEIGHT = 0.1
# The line search begins here, and looks at so many noises of the photo and prior-preservation samples.
FIRST_LR, LINE_SEARCH_SAMPLES, LINE_SEARCH_PRIOR = 0.004, 8, 2
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
    lr: float | None = None
    """AdamW's, times √‖W‖ of the layer relative to the others'. None finds it by a line search."""
    lr_factor: float = 0.5
    """The share that is taken of what the line search finds: with all of it, some finetunes diverge."""
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
    """The sharpened LiDB, on the CPU; how many iterations it saw, fewer than asked for after an interrupt; and the
    learning rate that they began with."""

    lidb: LiDB
    steps: int
    lr: float


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

    @torch.no_grad()
    def loss(self, lidb: LiDB | StackedLiDB, batch: TrainBatch) -> float:
        """That of `batch` with `lidb` in the model."""
        with injected(self.linears, Applied(lidb)):
            return float(sum(self._loss(part) for part in batch.micro_batches(self.micro_batch_size)))

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


class FinetuneStep:
    """Called with a batch: one step down the gradient, and the loss. Nothing here waits for the device."""

    def __init__(self, objective: Objective, trained: StackedLiDB, optimizer: ScaledAdamW) -> None:
        self._objective, self._trained, self._optimizer = objective, trained, optimizer

    def __call__(self, batch: TrainBatch) -> torch.Tensor:
        loss, gradients = self._objective.gradients(self._trained, self._trained.parameters, batch)
        self._optimizer.step(gradients)
        return loss


@dataclass(frozen=True)
class Batches:
    """What the iterations look at: noises of the subject's photo, and prior-preservation samples beside them, where
    there are any. To be asked for while no LiDB is in the model."""

    host: Host
    subject: Subject
    options: FinetuneOptions
    generator: torch.Generator
    prior: PriorPreservation | None
    micro_batch_size: int

    def large(self) -> TrainBatch:
        """One for the line search."""
        batch = self._photo(LINE_SEARCH_SAMPLES)
        if self.prior is None:
            return batch
        prior = self.prior.batch(
            self.host, self.subject.latents, LINE_SEARCH_PRIOR, self.generator, self.micro_batch_size
        )  # fmt: skip
        return with_prior(batch, prior, self.options.prior_weight)

    def __iter__(self) -> Iterator[TrainBatch]:
        """Without end, those of the iterations."""
        options, prior_batches = self.options, None
        if self.prior is not None:
            prior_batches = self.prior.batches(
                self.host, self.subject.latents, options.prior_batch, self.generator, options.batch,
                self.micro_batch_size,
            )  # fmt: skip
        while True:
            batch = self._photo(options.batch)
            yield with_prior(batch, next(prior_batches), options.prior_weight) if prior_batches else batch

    def _photo(self, size: int) -> TrainBatch:
        weight = self.options.identity_weight
        return make_batch(
            self.host, self.subject, size, self.generator, IDENTITY_WEIGHT if weight is None else weight
        )  # fmt: skip


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
    prior = _prior(host, subject, options)
    prompts = [subject.prompt, *(prior.prompts if prior else ())]
    trained, cond = _trained(lidb, options.text), _cond(host, lidb, prompts, options.text)
    objective = Objective(host, host.linears(), cond, micro_batch_size, identity)
    batches = Batches(host, subject, options, generator, prior, micro_batch_size)
    scales = trained.columns(relative_steps(weight_norms(objective.linears)))
    lr = options.lr or options.lr_factor * _found_lr(objective, trained, scales, batches)
    optimizer = ScaledAdamW(trained.parameters, scales, lr)
    take: Callable[[TrainBatch], torch.Tensor] = FinetuneStep(objective, trained, optimizer)
    if host.capturable and not options.text:
        take = Recorded(take)
    step, loss_before, stream = done, None, iter(batches)
    while step < options.steps and not should_stop():
        optimizer.set_lr(lr * _decay(step, options.steps))
        loss = to_cpu_async(take(next(stream)))
        step += 1
        # A graphics card is never idle while somebody waits for a number.
        known = loss_before if loss_before and trained.parameters[0].is_cuda else loss
        on_step(Progress(step, options.steps, _checked(known(), step), trained.within(lidb)))
        loss_before = loss
    if loss_before is None:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    _checked(loss_before(), step)
    return Finetuned(replace(trained.within(lidb).detached(), basis=basis), step, lr)


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


def _prior(host: Host, subject: Subject, options: FinetuneOptions) -> PriorPreservation | None:
    if not options.prior_batch:
        return None
    anybody = class_prompt(subject.prompt, subject.trigger)
    return PriorPreservation.of(host, subject.prompt, anybody, options.prior_unprompted)


def _found_lr(objective: Objective, trained: StackedLiDB, scales: list[torch.Tensor], batches: Batches) -> float:
    """The rate whose first step lowers other noises' loss most: AdamW's first step goes by the gradient's signs."""
    _, gradients = objective.gradients(trained, trained.parameters, batches.large())
    steps = [-gradient.sign() * scale for gradient, scale in zip(gradients, scales, strict=True)]
    others = batches.large()
    return longest_gain(lambda lr: objective.loss(trained.moved(lr * step for step in steps), others), FIRST_LR)


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
