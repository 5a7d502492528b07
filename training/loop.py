"""The loop that every training here shares: that of the builds (`pretrain.loop`), with Muon, and ended by the clock.

A training has a length in steps; a call may end sooner, after so many minutes, and the next call goes on to the bit.
The learning rate is constant until the last share of the steps (or of the minutes, where the call is the only one).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn  # type: ignore[attr-defined]

from hyperdreambooth_ext.pretrain.loop import Loop, LoopOptions, Step, lines_of
from hyperdreambooth_ext.pretrain.processes import Processes
from hyperdreambooth_ext.pretrain.progress import Paused, Reporter

from .muon import MuonAdamW

PRINT_EVERY = 100


@dataclass(frozen=True)
class Run:
    """How long to train, and how: `minutes` ends this call, and with `whole` the learning rate falls before they end,
    so that nothing has to come after it."""

    steps: int
    lr: float
    minutes: float = float("inf")
    whole: bool = False
    seed: int = 0
    ema: float = 0.999
    cooldown: float = 0.2
    warm_up: int = 200
    save_seconds: float = 180.0
    precision: str = "fp32"
    sheet_minutes: float = 60.0


class _Clock(Reporter):
    """Says when the minutes of this call are over."""

    def __init__(self, minutes: float) -> None:
        self.began, self.seconds = time.monotonic(), minutes * 60

    @property
    def share(self) -> float:
        return (time.monotonic() - self.began) / self.seconds

    def should_pause(self) -> bool:
        return self.share >= 1


def precision_of(device: torch.device) -> str:
    """Half precision where the machine has instructions for it."""
    if device.type == "cuda":
        return "bf16"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def averaged(decay: float) -> Callable:
    """`AveragedModel`'s function for a moving average that begins short: of a short training it holds the end, and not
    the first weights."""

    def average(averages, parameters, count) -> None:
        count = int(count)
        shorter = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))
        shorter(averages, parameters, count)

    return average


def train(
    out: Path, model: torch.nn.Module, losses_of: Step, run: Run, beside=None, is_adamw=lambda name: False,
    sheet: Callable[[torch.nn.Module, int], None] | None = None, processes: Processes = Processes(),
) -> torch.nn.Module:  # fmt: skip
    """Train `model` in place and return its moving average, also where the minutes ended the call before the steps.

    `losses_of(step, rng)` returns named losses; "loss" is minimized, all are logged to OUT/log.jsonl. OUT/state.pt
    holds everything that a resumed run needs. `sheet(average, step)` is called every `run.sheet_minutes` and at the
    end. Raises FileError, TrainingError as `Loop` does.
    """
    clock, shown = _Clock(run.minutes), _Clock(run.sheet_minutes)

    def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
        done = max(step / steps, processes.share(clock.share) if run.whole else 0.0)
        return peak * min(1.0, (step + 1) / warm_up, max(0.02, (1 - done) / run.cooldown))

    options = LoopOptions(
        run.steps, run.lr, run.seed, warm_up=run.warm_up, ema=run.ema, save_seconds=run.save_seconds,
        schedule=learning_rate, precision=run.precision,
    )  # fmt: skip
    half = run.precision == "bf16"
    optimizer = MuonAdamW(model, run.lr, is_adamw=is_adamw, processes=processes, half=half)
    loop = Loop(out, model, options, processes, callback=beside, optimizer=optimizer)
    loop.average.multi_avg_fn = averaged(run.ema)  # type: ignore[assignment]

    def after_step(step: int) -> None:
        if not processes.first:
            return
        if step % PRINT_EVERY == 0:
            print(json.dumps(lines_of(out / "log.jsonl")[-1]), flush=True)
        if sheet is not None and shown.share >= 1:
            shown.began = time.monotonic()
            sheet(loop.average.module, step)

    try:
        loop.run(losses_of, clock, after_step)
    except Paused:
        print(f"{out}: paused after step {loop.step} of {run.steps}", flush=True)
    if sheet is not None and processes.first:
        sheet(loop.average.module, loop.step)
    return loop.average.module
