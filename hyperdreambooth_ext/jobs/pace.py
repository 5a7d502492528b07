"""How long the rest of a job takes, from the steps it has done."""

import time
from collections.abc import Callable

# A finetune iteration is a forward and a backward pass over several noises; a sampling step is two forward passes of
# one. Before the first picture was sampled this is what one sampling step counts in iterations.
_SAMPLING_STEP = 0.12
# Weight of the newest iteration in the running mean.
_NEWEST = 0.2


class Pace:
    """Seconds per finetune iteration and per sampling step, measured as they pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._begun = False
        self._iteration: float | None = None
        self._sampling: float | None = None

    def begin(self) -> None:
        """What follows is measured from now."""
        self._last = self._clock()

    def iteration(self) -> None:
        """One finetune iteration is done. The first tells nothing: before it the learning rate was looked for."""
        if self._begun:
            self._iteration = self._mean(self._iteration)
        else:
            self.begin()
        self._begun = True

    def sampling(self) -> None:
        """One sampling step is done."""
        self._sampling = self._mean(self._sampling)

    @property
    def seconds(self) -> tuple[float | None, float | None]:
        """Of one iteration and of one sampling step; None before the first."""
        return self._iteration, self._sampling

    def left(self, iterations: int, sampling_steps: int) -> float | None:
        """Seconds for so many more of each; None before anything was measured."""
        sampling = self._sampling
        if sampling is None and self._iteration is not None:
            sampling = self._iteration * _SAMPLING_STEP
        if sampling is None or (iterations and self._iteration is None):
            return None
        return iterations * (self._iteration or 0.0) + sampling_steps * sampling

    def _mean(self, old: float | None) -> float | None:
        now, last = self._clock(), self._last
        self._last = now
        if last is None:
            return old
        return now - last if old is None else old + _NEWEST * (now - last - old)
