"""A build that kills itself, as `kill -9` does, at its N-th report of a stage: CHECKPOINT FOLDER STAGE N."""

import os
import signal
import sys
from itertools import count
from pathlib import Path

import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.pretrain.build import build
from hyperdreambooth_ext.pretrain.progress import Reporter
from tests.pretrain.conftest import SMALL

if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoint, folder, stage, reports = sys.argv[1], Path(sys.argv[2]), sys.argv[3], count(1)

    def tell(progress) -> None:
        if progress.stage == stage and next(reports) == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

    build(folder, SMALL | {"target_steps": 2, "beta": 0.1}, DiffusersHost(checkpoint), folder / "out", Reporter(tell))
