"""Benchmarks in several processes: nothing goes on measuring after the command has ended."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from benchmarks.machine import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        pool.submit(abs, -1).result()
        print("at work", flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script, root = tmp_path / "pool.py", Path(__file__).parents[2]
    script.write_text(SCRIPT)
    command = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root)}
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stdout.readline() == "at work\n"
    command.kill()
    # The worker holds the pipe's other end: reading comes to an end when it does.
    assert command.communicate(timeout=60)[0] == ""
