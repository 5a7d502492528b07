"""kill -9 at random moments: while a face is learned and saved, a LoRA exported, a hypernetwork trained.

A process that has everything loaded forks a worker, which works until it is killed; so the moments fall into the work
and not into imports. After each kill all files must be whole or absent and be the old or the new ones; then comes what
the next start does, and no temporary file may be left. A training that was killed again and again must end with the
very weights of one that was not. POSIX.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load as parsed

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork, load_hypernetwork, save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.hypernet.training import Batch, training_losses
from hyperdreambooth_ext.images.photo import Photo, load_photo
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.lora import export_lora
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize, save
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS, SAMPLE_PHOTO
from hyperdreambooth_ext.temporary import SUFFIX, remove_leftovers
from training.loop import train

TRAINING_STEPS = 6


@dataclass(frozen=True)
class Job:
    """`work(folder)` is what is killed; `check(folder)` raises AssertionError for a file that is not whole."""

    work: Callable[[Path], object]
    check: Callable[[Path], object]
    share: float


def jobs(scratch: Path) -> dict[str, Job]:
    """The three kinds of work, on the embedded model, everything loaded."""
    host, photo = DiffusersHost(CHECKPOINT), Photo(load_photo(SAMPLE_PHOTO)[::3, ::3].copy())
    hypernetwork = fitting_hypernetwork(host, MODELS)
    small = HypernetworkConfig(Architecture.of(host.linears()), encoder="mobilenetv3_small_050", width=32, depth=1)
    torch.manual_seed(0)
    untrained = Hypernetwork(small)
    source = scratch / "source.safetensors"
    # Learned in a process of its own: a fork must not inherit a used autograd.
    _finished(lambda: _learn(host, photo, hypernetwork, scratch, "source", 0))
    lidb, info = file.load(source)

    def learn(folder: Path) -> None:
        for seed in range(1000):
            _learn(host, photo, hypernetwork, folder, "anna", seed % 2)

    def export(folder: Path) -> None:
        for number in range(100_000):
            export_lora(folder / "anna_lora.safetensors", lidb, file.Info(**{**vars(info), "name": f"n{number % 2}"}))

    def learning(folder: Path) -> None:
        _train(host, untrained, folder)

    return {
        "personalize": Job(learn, lambda folder: _check_files(folder, file.load), 0.4),
        "export": Job(export, lambda folder: _check_files(folder, lambda path: parsed(path.read_bytes())), 0.3),
        "training": Job(learning, _check_training, 0.3),
    }


def _learn(host, photo, hypernetwork, folder: Path, name: str, seed: int) -> None:
    request = Request(name, options=FinetuneOptions(steps=1, batch=1), seed=seed, size=64)
    save(personalize(photo, request, host, hypernetwork), folder, overwrite=True)


def _train(host: DiffusersHost, network: Hypernetwork, folder: Path) -> None:
    channels = network.decoder.features_in.in_features
    people = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    features = torch.randn(2, 4, channels, generator=torch.Generator().manual_seed(4))

    def losses(step, rng):
        generator = torch.Generator().manual_seed(step)
        return training_losses(host, network.decoder, Batch(features, people, ["a sks face"] * 2), generator)

    with host.frozen(), contextlib.redirect_stdout(None):
        average = train(folder, network.decoder, losses, steps=TRAINING_STEPS, lr=1e-3, save_seconds=0)
    network.decoder.load_state_dict(average.state_dict())
    save_hypernetwork(folder / "hypernetwork.safetensors", network)


def _check_files(folder: Path, read: Callable[[Path], object]) -> None:
    for path in folder.glob("*.safetensors"):
        read(path)


def _check_training(folder: Path) -> None:
    _check_files(folder, load_hypernetwork)
    if (folder / "state.pt").exists():
        assert 0 < torch.load(folder / "state.pt", weights_only=True)["step"] <= TRAINING_STEPS


def _temporary(folder: Path) -> int:
    return sum(path.name.endswith((SUFFIX, "state.tmp")) for path in folder.iterdir())


def _forked(work: Callable[[], object]) -> int:
    """The id of a process that does `work` and ends."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def _finished(work: Callable[[], object]) -> float:
    """Seconds that a process of its own needs to do `work`."""
    started = time.monotonic()
    _, status = os.waitpid(_forked(work), 0)
    assert status == 0, "the work failed without being killed"
    return time.monotonic() - started


def killed(job: Job, folder: Path, seconds: float) -> bool:
    """Work in `folder` and kill it after so long; False when it was ready before. Every file is looked at."""
    child = _forked(lambda: job.work(folder))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the worker failed by itself"
    job.check(folder)
    return os.WIFSIGNALED(status)


def endured(name: str, job: Job, kills: int, folder: Path, random: Random) -> Counter:
    """Kill `job` so many times, each time going on with what the last one left."""
    counts: Counter = Counter()
    whole = folder / "whole"
    whole.mkdir(parents=True)
    longest, reference = 2.0, ""
    if name == "training":
        longest = 1.2 * _finished(lambda: job.work(whole))
        reference = _digest(whole / "hypernetwork.safetensors")
    now = folder / "0"
    now.mkdir()
    while counts["kills"] < kills:
        was_killed = killed(job, now, random.uniform(0, longest))
        counts["kills"] += was_killed
        counts["while_writing"] += bool(_temporary(now))
        if name != "training":
            remove_leftovers(now)
            assert _temporary(now) == 0, "a temporary file was left"
            continue
        # The next start goes on, which `_train` does by itself, and after some kills it may end.
        if not was_killed or random.random() < 0.1:
            _finished(lambda folder=now: job.work(folder))
            assert _digest(now / "hypernetwork.safetensors") == reference, "the resumed training went another way"
            assert _temporary(now) == 0, "a temporary file was left"
            counts["trainings_finished"] += 1
            now = folder / str(counts["trainings_finished"])
            now.mkdir()
    return counts


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py robustness kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", choices=("personalize", "export", "training"))
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, totals = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, job in jobs(Path(scratch)).items():
            if args.job in (None, name):
                kills = args.kills if args.job else round(args.kills * job.share)
                totals[name] = dict(endured(name, job, kills, Path(scratch) / name, Random(args.seed)))
                print(f"{name}: {totals[name]}, {time.monotonic() - started:.0f} s", flush=True)
    total = sum(counts["kills"] for counts in totals.values())
    print(json.dumps({"kills": total, "jobs": totals, "seconds": round(time.monotonic() - started)}))
    return 0
