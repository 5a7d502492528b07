"""What every method of the comparison is asked for, and the clock that it runs against."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.personalize.batch import Subject, prepare_subject
from hyperdreambooth_ext.sampling.schedule import add_noise, training_target

from ..people import Person, face_of

PROMPT, CLASS_PROMPT, TRIGGER = "a sks face", "a face", "sks"


class Learned(Protocol):
    """What a method knows of a person."""

    def applied(self, host: DiffusersHost, multiplier: float) -> AbstractContextManager[None]:
        """Within this context `host`, a checkpoint as its file says, samples the person, as strongly as asked for."""
        ...

    def save(self, folder: Path) -> Path:
        """Write what a user would keep, 16-bit where the method's own tools have that choice; returns the file."""
        ...


class Watch:
    """The clock, which stands still while a snapshot is taken, and the snapshots: (step, seconds, what was learned)."""

    def __init__(self, wanted: set[int], now: Callable[[], float] = time.perf_counter) -> None:
        self._wanted, self._now, self._began, self._paused = wanted, now, now(), 0.0
        self.snapshots: list[tuple[int, float, Learned]] = []

    def __call__(self, step: int, keep: Callable[[], Learned]) -> None:
        """After every step; `keep` copies what was learned until then."""
        if step in self._wanted:
            began, seconds = self._now(), self.seconds()
            self.snapshots.append((step, seconds, keep()))
            self._paused += self._now() - began

    def seconds(self) -> float:
        return self._now() - self._began - self._paused


@dataclass(frozen=True)
class Task:
    """One person to learn on one model. `prior` are latents [N, 4, h, w] of pictures of anybody, for DreamBooth;
    `image_head` maps identity vectors to the text encoder's space, for aesthetic gradients."""

    host: DiffusersHost
    hypernetwork: Hypernetwork | None
    person: Person
    prior: torch.Tensor
    image_head: torch.Tensor
    seed: int = 0

    def subject(self) -> Subject:
        """The face, found and encoded as HyperDreamBooth does it, so that all methods see the same."""
        photo = self.person.photo
        crop = face_of(photo, self.host.default_size)
        return replace(prepare_subject(crop, self.host, PROMPT), mask=None)


class Method(Protocol):
    """`steps` at a learning rate `lr`, the best of `sweep` where no other is asked for (None: it has none)."""

    @property
    def steps(self) -> int: ...

    @property
    def sweep(self) -> tuple[float, ...]: ...

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned: ...


def denoising_loss(host: DiffusersHost, latents, noise, timesteps, condition: torch.Tensor) -> torch.Tensor:
    """The mean squared error that all baselines are trained with; `condition` [1 or B, 77, width]."""
    alphas_cumprod = host.alphas_cumprod[timesteps]
    predicted = host.predict(
        add_noise(latents, noise, alphas_cumprod), timesteps, condition.expand(len(latents), -1, -1)
    )
    return F.mse_loss(predicted, training_target(latents, noise, alphas_cumprod, host.prediction_type))


@dataclass
class Descent:
    """AdamW as the methods' own training scripts have it: a constant rate, gradients clipped to norm 1."""

    parameters: list[nn.Parameter] | list[torch.Tensor]
    lr: float
    weight_decay: float = 1e-2
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.lr, weight_decay=self.weight_decay)

    def step(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


@contextmanager
def weights_moved(module: nn.Module, towards: dict[str, torch.Tensor], multiplier: float) -> Iterator[None]:
    """Within this context the named weights are W + multiplier · (towards − W)."""
    parameters = dict(module.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in towards}
    try:
        with torch.no_grad():
            for name, weight in towards.items():
                parameters[name].lerp_(weight.to(parameters[name]), multiplier)
        yield
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                parameters[name].copy_(weight)
