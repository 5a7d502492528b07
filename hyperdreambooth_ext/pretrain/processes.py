"""One process, or several that `accelerate launch` or `torchrun` started: who does what, and sums over all."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import UserError


class Processes:
    """A single process: it does everything. `Accelerated` is the same for many."""

    rank, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes what there is only one of."""
        return self.rank == 0

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace every tensor by its mean over all processes."""

    def wait(self) -> None:
        """Until all processes are here."""

    def any(self, value: bool) -> bool:
        """Whether it is true in some process."""
        return value

    def share(self, value: Any) -> Any:
        """The first process's `value`, in all of them."""
        return value

    def slice_of(self, total: int) -> slice:
        """This process's part of a batch. Raises UserError when it cannot be shared out evenly."""
        if total % self.count:
            raise UserError(f"A batch of {total} cannot be shared out to {self.count} processes: use a multiple of it.")
        part = total // self.count
        return slice(self.rank * part, (self.rank + 1) * part)


class Accelerated(Processes):
    """Several processes through Hugging Face's accelerate."""

    def __init__(self, cpu: bool) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=cpu)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        # In one piece: hundreds of small messages take longer than one large.
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        flat = self._accelerator.reduce(flat, "mean")
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def any(self, value: bool) -> bool:
        return bool(self._accelerator.reduce(torch.tensor(float(value), device=self.device), "sum").item())

    def share(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]


def processes(cpu: bool) -> Processes:
    """What this process was started as. Raises UserError when it is one of several and accelerate is missing."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    try:
        return Accelerated(cpu)
    except ImportError as error:
        raise UserError("Several processes need the package accelerate: pip install accelerate.") from error
