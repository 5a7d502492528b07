"""Means over the processes of one machine, through memory that they share, which takes less time than sockets."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from hyperdreambooth_ext.pretrain.processes import Processes

FOLDER = Path("/dev/shm")
"""Files in it are memory."""
PREFIX = "hyperdreambooth-"


class NeighborProcesses(Processes):
    """Processes of one machine that train on its processor; elsewhere `Processes` is right."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        super().__init__(rank, count)
        # Two, used in turn: while one is written, a slower process may still read the other.
        self._memories = [torch.empty(count, 0), torch.empty(count, 0)]

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        if self.count == 1:
            return
        sizes = [tensor.numel() for tensor in tensors]
        self._memories.reverse()
        if self._memories[0].shape[1] < sum(sizes):
            self._memories[0] = self._shared(sum(sizes))
        memory = self._memories[0][:, : sum(sizes)]
        torch.cat([tensor.detach().flatten() for tensor in tensors], out=memory[self.rank])
        self.wait()
        for tensor, parts in zip(tensors, memory.split(sizes, dim=1), strict=True):
            tensor.copy_(parts.mean(0).view_as(tensor))

    def _shared(self, size: int) -> torch.Tensor:
        """Float32 [count, size] that all processes see."""
        name = ""
        if self.first:
            handle, name = tempfile.mkstemp(prefix=PREFIX, dir=FOLDER)
            os.close(handle)
        name = self.share(name)
        memory = torch.from_file(name, shared=True, size=self.count * size, dtype=torch.float32).view(self.count, size)
        self.wait()
        if self.first:
            # It lives on until the last process ends.
            Path(name).unlink()
        return memory


def started_processes(device: torch.device) -> Processes:
    """Those that this one was started with, all on this machine."""
    return NeighborProcesses.started() if device.type == "cpu" else Processes.started()
