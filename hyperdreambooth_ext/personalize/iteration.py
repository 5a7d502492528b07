"""One iteration of the finetune: look at some noisy samples, compute the loss and its gradients, move the weights."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ..hosts.protocol import Host
from ..lidb.injection import Applied, injected
from ..lidb.weights import LiDB, StackedLiDB
from ..sampling.schedule import add_noise, clean_latents, training_target
from .likeness_term import LikenessTerm
from .style_prior import StyleLesson
from .subject import Subject

Conditions = Callable[[], torch.Tensor]
Noised = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


# Of the free memory of a graphics card so much may be filled, by so many numbers for each place of a sample's latents:
# SD 1.5 keeps 1.6 GB of a sample at 512 pixels for the backward pass in 16 bits (`benchmarks.full_size`).
_MEMORY_SHARE, _NUMBERS_A_PLACE = 0.75, 0.2e6
_ALL = 1 << 16


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


@dataclass(frozen=True)
class Look:
    """What an iteration looks at, N samples: noisy, wanted [N, 4, h, w]; timesteps int64 [N]; weights [N, 1, h, w],
    how much each place of each sample counts, with a sum over samples of about 1; alike [N], how much it counts whether
    the person is seen in each sample; prompts int64 [N], the rows of the conditions, or None where all samples share
    the first."""

    noisy: torch.Tensor
    wanted: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    alike: torch.Tensor
    prompts: torch.Tensor | None

    def parts(self, micro_batch_size: int) -> "Iterator[Look]":
        """As few parts of at most `micro_batch_size` samples as there can be, none much smaller than another."""
        count = len(self.noisy)
        passes = math.ceil(count / micro_batch_size)
        for i in range(passes):
            part = slice(count * i // passes, count * (i + 1) // passes)
            yield self.map(lambda tensor: tensor[part])  # noqa: B023  # called at once

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Look":
        """The same with `change(tensor)` in place of every tensor."""
        return replace(self, **{name: change(tensor) for name, tensor in vars(self).items() if tensor is not None})


def look_at(
    host: Host, subject: Subject, photo: Noised, styles: StyleLesson | None = None, style_weight: float = 0.0,
    identity_weight: float = 0.0,
) -> Look:  # fmt: skip
    """Noises of the photo, each predicted as in training, in which the person shall be seen, and styled samples, which
    shall come out as they would without the LiDB. `photo`: latents, noise and timesteps."""
    latents, noise, timesteps = photo
    alphas_cumprod = host.alphas_cumprod[timesteps]
    noisy = add_noise(latents, noise, alphas_cumprod)
    wanted = training_target(latents, noise, alphas_cumprod, host.prediction_type).float()
    places = noisy.new_ones(1, 1, *noisy.shape[2:]) if subject.mask is None else subject.mask / subject.mask.mean()
    weights = places.expand(len(noisy), -1, -1, -1) / len(noisy)
    alike = torch.full_like(weights[:, 0, 0, 0], identity_weight / len(noisy))
    if styles is None:
        return Look(noisy, wanted, timesteps, weights, alike, None)
    of_styles = torch.full_like(weights[:1], style_weight / len(styles.noisy)).expand(len(styles.noisy), -1, -1, -1)
    return Look(
        torch.cat([noisy, styles.noisy]), torch.cat([wanted, styles.wanted]),
        torch.cat([timesteps, styles.timesteps]), torch.cat([weights, of_styles]),
        torch.cat([alike, alike.new_zeros(len(styles.noisy))]),
        torch.cat([styles.styles.new_zeros(len(noisy)), 1 + styles.styles]),
    )  # fmt: skip


class Iteration:
    """Called with a Look it takes one step down the gradient and returns the loss; nothing here waits for the device.

    `conditions` gives the prompts' embeddings [1 + S, 77, width] while the LiDB is in the model. `likeness` is asked
    where there is one.
    """

    def __init__(
        self, host: Host, linears: Mapping[str, nn.Linear], trained: StackedLiDB, conditions: Conditions,
        micro_batch_size: int, lr: float, likeness: LikenessTerm | None = None,
    ) -> None:  # fmt: skip
        self._likeness = likeness
        self._host, self._linears, self._trained, self._conditions = host, linears, trained, conditions
        self._at_once = micro_batch_size
        self._on_gpu = trained.parameters[0].is_cuda
        # On a graphics card the rate lies there too: a captured step reads it, and one kernel moves all parameters.
        rate = torch.tensor(lr, device=trained.parameters[0].device) if self._on_gpu else lr
        self._optimizer = torch.optim.AdamW(
            trained.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0,
            fused=self._on_gpu or None, capturable=self._on_gpu,
        )  # fmt: skip

    def set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            if self._on_gpu:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def __call__(self, look: Look) -> torch.Tensor:
        parameters = self._trained.parameters
        loss, gradients = gradients_of(
            self._host, self._linears, self._trained, parameters, look, self._conditions, self._at_once,
            self._likeness,
        )  # fmt: skip
        for tensor, gradient in zip(parameters, gradients, strict=True):
            tensor.grad = gradient
        self._optimizer.step()
        return loss


def gradients_of(
    host: Host, linears: Mapping[str, nn.Linear], lidb: LiDB | StackedLiDB, parameters: Sequence[torch.Tensor],
    look: Look, conditions: Conditions, micro_batch_size: int, likeness: LikenessTerm | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:  # fmt: skip
    """The loss of `look` with `lidb` in the model, and its gradients, summed over the micro-batches."""
    losses, gradients = [], [torch.zeros_like(parameter) for parameter in parameters]
    for part in look.parts(micro_batch_size):
        with torch.enable_grad(), injected(linears, Applied(lidb)):
            loss = _loss(host, part, conditions(), likeness)
        torch._foreach_add_(gradients, torch.autograd.grad(loss, parameters))
        losses.append(loss.detach())
    return torch.stack(losses).sum(), gradients


def _loss(host: Host, look: Look, conditions: torch.Tensor, likeness: LikenessTerm | None) -> torch.Tensor:
    count = len(look.noisy)
    # `expand`ed, the changed layers look at it once for all samples.
    prompts = conditions[:1].expand(count, -1, -1) if look.prompts is None else conditions[look.prompts]
    predicted = host.predict(look.noisy, look.timesteps, prompts).float()
    errors = F.mse_loss(predicted, look.wanted, reduction="none") * look.weights
    denoising = errors.mean((1, 2, 3)).sum()
    if likeness is None:
        return denoising
    alphas_cumprod = host.alphas_cumprod[look.timesteps]
    guess = clean_latents(look.noisy, predicted, alphas_cumprod, host.prediction_type)
    return denoising + (look.alike * likeness.unlike(guess, alphas_cumprod)).sum()
