"""Personalize, generate, delete, hundreds of times in one process: nothing grows and nothing drifts.

Each round is what a user does: a job through the queue, a picture of a prompt with the tag, the file deleted. All
rounds have one seed, so every file and every picture must be the same bytes.
"""

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

from hyperdreambooth_ext.cli.backend import StandaloneBackend
from hyperdreambooth_ext.cli.generate import generate
from hyperdreambooth_ext.images.photo import Photo, load_photo
from hyperdreambooth_ext.jobs.jobs import Studio
from hyperdreambooth_ext.jobs.task import Task
from hyperdreambooth_ext.sampling.sampler import Sampling
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.robustness.process import open_handles, resident_megabytes, threads
from tests.studio import ended

# Allocators and caches settle before the first figure counts.
SETTLED = 20
MAX_GROWTH_MEGABYTES = 30
# Small, so that it is the number of rounds that takes the time.
SAMPLING_STEPS, SIZE = 4, 64


def one_round(studio: Studio, photo: Photo, iterations: int) -> tuple[str, str]:
    """SHA-256 of the file and of the picture that it makes."""
    task = Task(photo, "anna", steps=iterations, picture_steps=1, preview_every=1, size=SIZE)
    status = ended(studio, studio.submit(task), seconds=600)
    assert status.stage == "done", status.message
    file = status.result.path
    learned = hashlib.sha256(file.read_bytes()).hexdigest()
    with studio.backend.model() as host:
        picture = generate(host, "a sks face <lidb:anna:1>", file.parent, Sampling(steps=SAMPLING_STEPS, size=SIZE))
    file.unlink()
    assert list(file.parent.iterdir()) == [], "a round left a file behind"
    return learned, hashlib.sha256(picture.tobytes()).hexdigest()


def run(folder: Path, rounds: int, iterations: int) -> dict:
    """The counts of so many rounds."""
    studio, photo = Studio(StandaloneBackend(folder)), Photo(load_photo(SAMPLE_PHOTO)[::3, ::3].copy())
    results, settled, started = set(), {}, time.monotonic()
    for number in range(1, rounds + 1):
        results.add(one_round(studio, photo, iterations))
        now = {"megabytes": round(resident_megabytes(), 1), "handles": open_handles(), "threads": threads()}
        if number == min(SETTLED, rounds):
            settled = now
        if number % 25 == 0 or number in (1, SETTLED):
            seconds = time.monotonic() - started
            print(f"round {number}: {now}, {len(results)} kind of result, {seconds:.0f} s", flush=True)
    return {
        "rounds": rounds, "iterations": iterations, "different_results": len(results),
        f"after_{min(SETTLED, rounds)}": settled, "at_the_end": now,
        "grown_megabytes": round(now["megabytes"] - settled["megabytes"], 1),
        "grown_handles": now["handles"] - settled["handles"], "grown_threads": now["threads"] - settled["threads"],
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def flat(counts: dict) -> bool:
    """Whether nothing grew and every round gave the same."""
    return (
        counts["different_results"] == 1
        and counts["grown_megabytes"] <= MAX_GROWTH_MEGABYTES
        and counts["grown_handles"] <= 0
        and counts["grown_threads"] <= 0
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py robustness rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--iterations", type=int, default=2, help="of each finetune (default: %(default)s)")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder) / "lidb", args.rounds, args.iterations)
    print(json.dumps(counts))
    return 0 if flat(counts) else 1
