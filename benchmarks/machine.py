"""Where a measurement runs and by which clock: what several commands here ask for alike."""

import argparse
import time
from collections.abc import Callable

import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` adds up the time of all threads of this process: it is for one thread on a machine with other work."""


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device, --dtype, --threads and --clock."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: with --threads 1")
