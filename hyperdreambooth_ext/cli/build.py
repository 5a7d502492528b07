"""`python run.py build`: a hypernetwork for a checkpoint, in one process or in many."""

import argparse
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import torch
from tqdm import tqdm

from ..jobs.forecast import peak_megabytes
from ..pretrain.build import build
from ..pretrain.options import BuildOptions, remembered
from ..pretrain.processes import Processes
from ..pretrain.progress import STAGE_WORDS, BuildProgress, Paused, Reporter
from ..pretrain.store import Folder
from ..shipped import MODELS
from .commands import load_host
from .options import named
from .terminal import stop_on_interrupt

_STOPPING = "Stopping after this step; the same command goes on from there. Ctrl-C again stops at once."


def run_build(args: argparse.Namespace) -> dict:
    """Build, or go on building; the summary of the command. Raises UserError."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if args.device == "auto" and torch.cuda.device_count() > 1:
        args.device = f"cuda:{rank}"
    host = load_host(args, _dtype(args))
    together = Processes.started()
    started = time.monotonic()
    bars = _Bars(quiet=args.json or not together.first)
    file, paused = None, False
    with stop_on_interrupt(_STOPPING) as stopped, host.recomputing() if args.low_memory else nullcontext():
        try:
            wanted, reporter = named(args, BuildOptions), Reporter(bars.show, stopped)
            file = build(args.folder, wanted, host, args.out or MODELS, reporter, together, args.until)
        except Paused:
            paused = True
        finally:
            bars.close()
    return _summary(args, file, paused, bars.last, together, time.monotonic() - started)


def _dtype(args: argparse.Namespace) -> torch.dtype:
    """The model's weights are in what the training computes in, fp16's alone are cast at every use."""
    begun = remembered(Folder(args.folder).options)
    precision = args.precision or (begun[0] if begun else BuildOptions()).precision
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _summary(args, file, paused: bool, last: BuildProgress | None, together: Processes, seconds: float) -> dict:
    if together.first and not args.json:
        if file is not None:
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, used from the next personalization on.")
        elif paused:
            print(f"Paused. `python run.py build {args.folder}` goes on from there.")
    return {
        "file": None if file is None else str(file), "paused": paused, "stage": last.stage if last else None,
        "done": last.done if last else 0, "total": last.total if last else 0, "score": last.score if last else None,
        "seconds": round(seconds, 1), "peak_megabytes": peak_megabytes(),
    }  # fmt: skip


class _Bars:
    """One progress bar per stage, on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.last: BuildProgress | None = None
        self._bar: tqdm | None = None

    def show(self, progress: BuildProgress) -> None:
        """Move the stage's bar."""
        if self._bar is None or self.last is None or self.last.stage != progress.stage:
            self.close()
            self._bar = tqdm(
                total=progress.total, initial=progress.done, desc=f"{STAGE_WORDS[progress.stage]:<24}", file=sys.stderr,
                ncols=100, disable=self.quiet,
            )  # fmt: skip
        self._bar.update(progress.done - self._bar.n)
        if progress.score:
            self._bar.set_postfix_str(f"likeness {progress.score['likeness']:.0%}", refresh=False)
        self.last = replace(progress, score=progress.score or (self.last.score if self.last else None))

    def close(self) -> None:
        """The bar of the last stage stays on the screen as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
