"""The rank-relaxed fast finetune: some iterations that sharpen what the start gave (HyperDreamBooth, section 4.3).

The paper takes 40. Here 80 that see four noises each are better than 40 that see sixteen (docs/method.md).
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import TrainingError, UserError
from ..hosts.protocol import Host
from ..hosts.transfer import to_cpu_async
from ..hypernet.config import DEFAULT_TRIGGER
from ..hypernet.hypernetwork import Hypernetwork
from ..hypernet.loss import IdentityLoss
from ..images.face import face_mask
from ..images.tensors import to_tensor
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB, StackedLiDB
from ..sampling.recorded import Recorded
from ..sampling.schedule import add_noise, clean_latents, random_samples, training_target
from .prior_preservation import PriorBatch, PriorPreservation, class_prompt

# Outside the face the loss counts this much: enough to keep the picture whole, not enough to learn the wallpaper.
BACKGROUND_WEIGHT = 0.1
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
class Subject:
    """The person to learn. image [1, 3, S, S] in [-1, 1], what a hypernetwork is shown; latents [2, 4, S/8, S/8],
    upright and mirrored; mask [1, 1, S/8, S/8]."""

    image: torch.Tensor
    latents: torch.Tensor
    mask: torch.Tensor | None
    prompt: str
    trigger: str = DEFAULT_TRIGGER


def prepare_subject(
    crop: np.ndarray, host: Host, prompt: str, masked: bool = True, trigger: str = DEFAULT_TRIGGER,
    through_autoencoder: bool = False,
) -> Subject:  # fmt: skip
    """Encode the aligned face `crop`, RGB uint8 [S, S, 3], upright and mirrored.

    `through_autoencoder`: the image is what the latents keep of the crop. A hypernetwork that learned from sampled
    faces has seen no others, and reads another person out of a sharp photo (docs/build.md).
    """
    image = to_tensor([crop])
    # One after the other: of a large picture this is where a graphics card needs the most memory.
    latents = torch.cat([host.encode_images(one) for one in (image, image.flip(-1))])
    mask = None
    if masked:
        weights = F.interpolate(torch.from_numpy(face_mask(len(crop)))[None, None], latents.shape[-2:], mode="area")
        mask = (BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * weights).to(host.device)
    if through_autoencoder:
        image = host.decode_latents(latents[:1]).float().cpu().clamp(-1, 1)
    return Subject(image, latents, mask, prompt, trigger)


@dataclass(frozen=True)
class TrainBatch:
    """What an iteration looks at, N samples: noisy, target [N, 4, h, w]; timesteps int64 [N]; weights [N, 1, h, w] of
    each place of each sample in the loss, with a sum over samples of about 1; identity_weights [N]; prompts int64 [N],
    the rows of the prompt embeddings, or None where all samples share the first."""

    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    identity_weights: torch.Tensor
    prompts: torch.Tensor | None

    def micro_batches(self, size: int) -> Iterator["TrainBatch"]:
        """As few parts of at most `size` samples as there can be, none much smaller than another."""
        count = len(self.noisy)
        passes = math.ceil(count / size)
        for i in range(passes):
            part = slice(count * i // passes, count * (i + 1) // passes)
            yield self.map(lambda tensor: tensor[part])  # noqa: B023  # called at once

    def tensors(self) -> list[torch.Tensor]:
        """All that there are, always in the same order."""
        return [tensor for tensor in vars(self).values() if tensor is not None]

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "TrainBatch":
        """The same with `change(tensor)` in place of every tensor."""
        return replace(self, **{name: change(tensor) for name, tensor in vars(self).items() if tensor is not None})


def make_batch(
    host: Host, subject: Subject, size: int, generator: torch.Generator, identity_weight: float = 0.0
) -> TrainBatch:
    """`size` noises of the photo, each to be predicted as in training; the face counts more than what is around it."""
    latents, noise, timesteps = random_samples(host, subject.latents, size, generator)
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = add_noise(latents, noise, alphas_cumprod)
    target = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    places = noisy.new_ones(1, 1, *noisy.shape[2:]) if subject.mask is None else subject.mask / subject.mask.mean()
    weights = places.expand(size, -1, -1, -1) / size
    identity_weights = torch.full_like(weights[:, 0, 0, 0], identity_weight / size)
    return TrainBatch(noisy, target, timesteps, weights, identity_weights, None)


def with_prior(batch: TrainBatch, prior: PriorBatch, prior_weight: float) -> TrainBatch:
    """`batch` and, after it, prior-preservation samples, which shall come out as they would without the LiDB."""
    size = len(prior.noisy)
    weights = torch.full_like(batch.weights[:1], prior_weight / size).expand(size, -1, -1, -1)
    return TrainBatch(
        torch.cat([batch.noisy, prior.noisy]), torch.cat([batch.target, prior.target]),
        torch.cat([batch.timesteps, prior.timesteps]), torch.cat([batch.weights, weights]),
        torch.cat([batch.identity_weights, batch.identity_weights.new_zeros(size)]),
        torch.cat([prior.prompts.new_zeros(len(batch.noisy)), 1 + prior.prompts]),
    )  # fmt: skip


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
) -> Finetuned:
    """Train `lidb` on the subject; the model itself stays frozen (call it within `host.frozen()`).

    `identity` says who is to be seen, with the options' `identity_weight`; without it the diffusion loss teaches alone.
    `should_stop` is asked before each iteration; what was learned until then is returned.

    Raises TrainingError for less than one step, also when interrupted before the first, or when the loss is no number.
    """
    if options.steps < 1:
        raise TrainingError(
            f"{options.steps} steps train nothing: use at least 1, {FinetuneOptions.steps} is the default.", "steps"
        )
    linears, basis = host.linears(), lidb.basis
    lidb = lidb.to(host.device)
    micro_batch_size = options.micro_batch_size or default_micro_batch_size(host, subject.latents)
    prior = _prior_preservation(host, subject, options)
    prior_batches = prior and prior.batches(
        host, subject.latents, options.prior_batch, generator, options.batch, micro_batch_size
    )
    prompts = [subject.prompt, *(prior.prompts if prior else ())]
    encoded = None if options.text else _encoded(host, linears, lidb, prompts)
    cond = (lambda: host.encode_prompts(prompts)) if encoded is None else (lambda: encoded)
    trained = _trained(lidb, options.text)
    optimizer_step = OptimizerStep(Objective(host, linears, cond, micro_batch_size, identity), trained, options.lr)
    take = Recorded(optimizer_step) if host.capturable and encoded is not None else optimizer_step
    identity_weight = IDENTITY_WEIGHT if options.identity_weight is None else options.identity_weight
    losses = _Losses()
    step = 0
    while step < options.steps and not should_stop():
        optimizer_step.set_lr(options.lr * _decay(step, options.steps))
        batch = make_batch(host, subject, options.batch, generator, identity_weight)
        if prior_batches:
            batch = with_prior(batch, next(prior_batches), options.prior_weight)
        loss = take(batch)
        step += 1
        value = _checked(losses.read(loss), step)
        on_step(Progress(step, options.steps, value, trained.within(lidb)))
    if step == 0:
        raise TrainingError("It was interrupted before the first step, so nothing was saved: start it again.")
    _checked(losses.last(), step)
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


def _prior_preservation(host: Host, subject: Subject, options: FinetuneOptions) -> PriorPreservation | None:
    if not options.prior_batch:
        return None
    anybody = class_prompt(subject.prompt, subject.trigger)
    return PriorPreservation.of(host, subject.prompt, anybody, options.prior_unprompted)


def _encoded(host: Host, linears: Mapping[str, nn.Linear], lidb: LiDB, prompts: list[str]) -> torch.Tensor:
    with torch.no_grad(), injected(linears, Applied(lidb)):
        return host.encode_prompts(prompts)


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
        raise TrainingError(
            f"The loss stopped being a number at step {step}: lower the learning rate, or load the model in full "
            "precision."
        )
    return loss


class _Losses:
    """Reads each iteration's loss; on a graphics card that of the one before, so that the card is never idle while
    somebody waits for a number. The first is waited for; `last` is the newest iteration's."""

    def __init__(self) -> None:
        self._newest: Callable[[], float] | None = None

    def read(self, loss: torch.Tensor) -> float:
        before, self._newest = self._newest, to_cpu_async(loss)
        return before() if loss.is_cuda and before else self.last()

    def last(self) -> float:
        assert self._newest is not None
        return self._newest()
