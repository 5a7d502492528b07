"""The finetune on a graphics card without waiting: an iteration as one CUDA graph, and losses read one late."""

from collections.abc import Callable
from dataclasses import fields

import torch

from .iteration import Look

# The first iterations run as they are: libraries and the optimizer make then what a captured one may not make.
EAGER = 2


class Captured:
    """`iteration` from its third call on as a CUDA graph, captured then and replayed from there.

    Thousands of small kernels of a step are launched one by one otherwise, which takes longer than a modern card needs
    to run them. Only for a host whose model never waits for the device (`Host.capturable`).
    """

    def __init__(self, iteration: Callable[[Look], torch.Tensor]) -> None:
        self._iteration = iteration
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, look: Look) -> torch.Tensor:
        self._calls += 1
        if self._calls <= EAGER:
            return self._iteration(look)
        if self._graph is None:
            self._capture(look)
        else:
            self._take(look)
        assert self._graph is not None
        self._graph.replay()
        return self._loss.clone()

    def _capture(self, look: Look) -> None:
        self._look = look.map(torch.clone)
        graph = torch.cuda.CUDAGraph()
        # Launches nothing: what is recorded runs when it is replayed.
        with torch.cuda.graph(graph):
            self._loss = self._iteration(self._look)
        self._graph = graph

    def _take(self, look: Look) -> None:
        for field in fields(look):
            given = getattr(look, field.name)
            if given is not None:
                getattr(self._look, field.name).copy_(given)


class Losses:
    """Reads each iteration's loss; on a graphics card that of the one before, so that the card is never idle while
    somebody waits for a number. The first is waited for; `last` is the newest iteration's."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._newest: Callable[[], float] | None = None

    def read(self, loss: torch.Tensor) -> float:
        before, self._newest = self._newest, _sent(loss) if self._late else loss.item
        return before() if self._late and before else self.last()

    def last(self) -> float:
        assert self._newest is not None
        return self._newest()


def _sent(loss: torch.Tensor) -> Callable[[], float]:
    """`loss` on its way to the processor, and what waits for it to arrive."""
    value = torch.empty((), dtype=loss.dtype, pin_memory=True)
    value.copy_(loss, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def arrived() -> float:
        event.synchronize()
        return value.item()

    return arrived
