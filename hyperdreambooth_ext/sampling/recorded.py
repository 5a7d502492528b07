"""What is done again and again on a graphics card, as a CUDA graph: a modern card runs the thousands of small kernels
of a training step faster than a processor can launch them one by one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

# The first calls run as they are: libraries and optimizers make then what a recorded call may not make.
EAGER_CALLS = 2


Batch = TypeVar("Batch", bound="TensorBatch")
Output = TypeVar("Output")


@dataclass(frozen=True)
class TensorBatch:
    """Tensors under names, beside other values; a field may be a batch of its own."""

    def tensors(self) -> list[torch.Tensor]:
        """All that there are, always in the same order."""
        own = [of for of in vars(self).values() if isinstance(of, torch.Tensor)]
        return own + [tensor for of in vars(self).values() if isinstance(of, TensorBatch) for tensor in of.tensors()]

    def map(self: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same with `change(tensor)` in place of every tensor."""
        tensors = {name: change(of) for name, of in vars(self).items() if isinstance(of, torch.Tensor)}
        batches = {name: of.map(change) for name, of in vars(self).items() if isinstance(of, TensorBatch)}
        return replace(self, **tensors, **batches)


class RecordingFailed(RuntimeError):
    """The card's libraries could not record the function; it can still be called as it is."""


class Recorded(Generic[Batch, Output]):
    """`function(batch)`, from the third call on recorded once for each kind of batch (its tensors' shapes) and
    replayed.

    Only for functions that never wait for the card (`Host.capturable`). Tensors in the output are overwritten by the
    next call: clone what shall outlive it. No autograd graph of an earlier call may be alive when a call is recorded:
    its nodes belong to another stream, and CUDA refuses (cudaErrorStreamCaptureImplicit).
    """

    def __init__(self, function: Callable[[Batch], Output]) -> None:
        self._function = function
        self._calls = 0
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Batch, Output]] = {}
        self._pool: tuple[int, int] | None = None

    def __call__(self, batch: Batch) -> Output:
        """Raises RecordingFailed when this kind of batch cannot be recorded."""
        self._calls += 1
        if self._calls <= EAGER_CALLS:
            return self._function(batch)
        kind = tuple(tensor.shape for tensor in batch.tensors())
        if kind not in self._graphs:
            self._graphs[kind] = self._record(batch)
        graph, still, output = self._graphs[kind]
        for place, tensor in zip(still.tensors(), batch.tensors(), strict=True):
            place.copy_(tensor)
        graph.replay()
        return output

    def _record(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Output]:
        """A graph, what it reads and what it writes."""
        still = batch.map(torch.clone)
        graph = torch.cuda.CUDAGraph()
        try:
            # Launches nothing: what is recorded runs when it is replayed.
            with torch.cuda.graph(graph, pool=self._pool):
                output = self._function(still)
        except RuntimeError as error:
            raise RecordingFailed(str(error)) from error
        # One after the other, never at once: all graphs work in the same memory.
        self._pool = graph.pool()
        return graph, still, output
