"""A training step's losses and gradients as a CUDA graph: a modern card runs its small kernels faster than a processor
can launch them one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from ..hypernet.training import Batch

Losses = dict[str, torch.Tensor]
# The first steps run as they are: libraries make then what a recorded one may not make.
EAGER = 2


class Recorded:
    """`losses_of(batch)`, from the third call on recorded once for each kind of batch and replayed.

    "loss" takes its gradients for `parameters` along; the other losses have none. Losses of an earlier call must be
    gone before the next: as long as they live, autograd goes on using their nodes of the parameters, which belong to
    another stream, and CUDA refuses to record (cudaErrorStreamCaptureImplicit). Where recording fails, it is told once
    and goes on without.
    """

    def __init__(
        self, losses_of: Callable[[Batch], Losses], parameters: Sequence[torch.Tensor], tell: Callable[[str], None]
    ) -> None:
        self._losses_of, self._parameters, self._tell = losses_of, list(parameters), tell
        self._calls = 0
        self._failed = False
        self._records: dict[tuple, _Record] = {}
        self._pool: tuple[int, int] | None = None

    def __call__(self, batch: Batch) -> Losses:
        self._calls += 1
        if self._failed or self._calls <= EAGER:
            return self._losses_of(batch)
        kind = tuple(tensor.shape for tensor in batch.tensors())
        record = self._records.get(kind)
        if record is None:
            try:
                record = self._records[kind] = self._record(batch)
            except RuntimeError as error:
                self._failed = True
                self._tell(f"The card's libraries could not record a step ({error}): it goes on without, more slowly.")
                return self._losses_of(batch)
        return record.replay(batch, self._parameters)

    def _record(self, batch: Batch) -> "_Record":
        still = batch.map(torch.clone)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            losses = self._losses_of(still)
            gradients = torch.autograd.grad(losses["loss"], self._parameters, allow_unused=True)
        # One after the other, never at once: all graphs work in the same memory.
        self._pool = graph.pool()
        return _Record(graph, still, {name: loss.detach() for name, loss in losses.items()}, gradients)


@dataclass(frozen=True)
class _Record:
    """What a graph reads (`still`) and what it writes."""

    graph: torch.cuda.CUDAGraph
    still: Batch
    losses: Losses
    gradients: tuple[torch.Tensor | None, ...]

    def replay(self, batch: Batch, parameters: list[torch.Tensor]) -> Losses:
        for place, tensor in zip(self.still.tensors(), batch.tensors(), strict=True):
            place.copy_(tensor)
        self.graph.replay()
        losses = {name: loss.clone() for name, loss in self.losses.items()}
        return losses | {"loss": _WithGradients.apply(losses["loss"], self.gradients, *parameters)}


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
