"""One process, or several that `torchrun` or `accelerate launch` started: who does what, and means over all."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..errors import UserError

# So long one may wait for the others: the first trains the recognizers alone.
_PATIENCE = timedelta(days=7)


class Processes:
    """The processes that share a build; a single one does everything."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def started(cls) -> "Processes":
        """Those that this one was started with."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        # What lies on a graphics card goes from card to card, everything else through the processors.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes what there is only one of."""
        return self.rank == 0

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace every tensor by its mean over all processes."""
        if self.count > 1:
            # In one piece: hundreds of small messages take longer than one large.
            flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors]) / self.count
            dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    def any(self, value: bool) -> bool:
        """Whether it is true in some process."""
        return any(self._gathered(value))

    def share(self, value: Any) -> Any:
        """The first process's `value`, in all of them."""
        return self._gathered(value)[0]

    def _gathered(self, value: Any) -> list[Any]:
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def slice_of(self, total: int) -> slice:
        """This process's part of a batch. Raises UserError when it cannot be shared out evenly."""
        if total % self.count:
            raise UserError(f"A batch of {total} cannot be shared out to {self.count} processes: use a multiple of it.")
        part = total // self.count
        return slice(self.rank * part, (self.rank + 1) * part)
