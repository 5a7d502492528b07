"""A training step's losses and gradients as a CUDA graph."""

from collections.abc import Callable, Sequence

import torch

from ..hypernet.training import Batch
from ..sampling.recorded import Recorded, RecordingFailed

Losses = dict[str, torch.Tensor]


class RecordedLosses:
    """`losses_of(batch)`, recorded and replayed (see `sampling/recorded.py`).

    The gradients of "loss" are in the `parameters` already: no loss has any. Where recording fails, it is told once and
    goes on without.
    """

    def __init__(
        self, losses_of: Callable[[Batch], Losses], parameters: Sequence[torch.Tensor], tell: Callable[[str], None]
    ) -> None:
        self._losses_of, self._parameters, self._tell = losses_of, list(parameters), tell
        self._take: Callable[[Batch], tuple[Losses, Sequence[torch.Tensor | None]]] = Recorded(self._with_gradients)

    def __call__(self, batch: Batch) -> Losses:
        try:
            losses, gradients = self._take(batch)
        except RecordingFailed as error:
            self._tell(f"The card's libraries could not record a step ({error}): it goes on without, more slowly.")
            self._take = self._with_gradients
            losses, gradients = self._take(batch)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return {name: loss.clone() for name, loss in losses.items()}

    def _with_gradients(self, batch: Batch) -> tuple[Losses, Sequence[torch.Tensor | None]]:
        losses = self._losses_of(batch)
        gradients = torch.autograd.grad(losses["loss"], self._parameters, allow_unused=True)
        return {name: loss.detach() for name, loss in losses.items()}, gradients
