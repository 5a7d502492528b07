"""Where a measurement runs and by which clock: what several commands here ask for alike."""

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` adds up the time of all threads of this process: it is for one thread on a machine with other work."""


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device, --dtype, --threads and --clock."""
    import torch  # a process that starts others need not wait for it

    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: with --threads 1")


def run_all(run: Callable[[Job], object], jobs: Iterable[Job], processes: int) -> None:
    """`run` each job, which starts a process of its own, so many at a time.

    Raises what the first failing one raises; those begun by then are finished, the others are left.
    """
    with ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(run, job) for job in jobs]
        try:
            for one in running:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """For a process of a pool: end as soon as the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
