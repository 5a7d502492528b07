"""A training step's losses and gradients as a CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch.autograd.function import once_differentiable

from ..hypernet.training import Batch
from ..sampling.recorded import Recorded, RecordingFailed

Losses = dict[str, torch.Tensor]
Gradients = tuple[torch.Tensor | None, ...]


class RecordedLosses:
    """`losses_of(batch)`, recorded and replayed (see `sampling/recorded.py`).

    "loss" takes its gradients for `parameters` along; the other losses have none. Losses of an earlier call must be
    gone before the next. Where recording fails, it is told once and goes on without.
    """

    def __init__(
        self, losses_of: Callable[[Batch], Losses], parameters: Sequence[torch.Tensor], tell: Callable[[str], None]
    ) -> None:
        self._losses_of, self._parameters, self._tell = losses_of, list(parameters), tell
        self._recorded = Recorded(self._with_gradients)
        self._failed = False

    def __call__(self, batch: Batch) -> Losses:
        if not self._failed:
            try:
                losses, gradients = self._recorded(batch)
            except RecordingFailed as error:
                self._failed = True
                self._tell(f"The card's libraries could not record a step ({error}): it goes on without, more slowly.")
            else:
                losses = {name: loss.clone() for name, loss in losses.items()}
                return losses | {"loss": _WithGradients.apply(losses["loss"], gradients, *self._parameters)}
        return self._losses_of(batch)

    def _with_gradients(self, batch: Batch) -> tuple[Losses, Gradients]:
        losses = self._losses_of(batch)
        gradients = torch.autograd.grad(losses["loss"], self._parameters, allow_unused=True)
        return {name: loss.detach() for name, loss in losses.items()}, gradients


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx, loss, gradients, *_parameters):
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        return None, None, *(None if gradient is None else grad_output * gradient for gradient in ctx.gradients)
