"""The loop that every training here shares: that of the builds (`build.loop`), with another learning rate.

The average of the weights is short, since the learning rate falls to nearly nothing anyway: a long one would drag in
early weights.
"""

import json
from pathlib import Path

import torch

from hyperdreambooth_ext.pretrain.loop import Loop, LoopOptions, Step, lines_of
from hyperdreambooth_ext.pretrain.progress import Reporter

PRINT_EVERY = 50


def learning_rate(step: int, steps: int, peak: float, warm_up: int, cooldown: float = 0.4) -> float:
    """Constant after a short warm-up, then falling linearly to 2 % of the peak over the last part of the run."""
    falling = int(steps * cooldown)
    scale = min(1.0, (step + 1) / warm_up, max(0.02, (steps - step) / max(falling, 1)))
    return peak * scale


def train(
    out: Path,
    model: torch.nn.Module,
    step_losses: Step,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    ema_decay: float = 0.995,
    save_seconds: float = 120,
    weight_decay: float = 0.01,
) -> torch.nn.Module:
    """Train `model` in place for `steps` and return its moving average.

    `step_losses(step, rng)` returns named losses; "loss" is minimised, all are logged to OUT/log.jsonl.
    OUT/state.pt holds everything that a resumed run needs. Raises FileError, TrainingError as `Loop` does.
    """
    options = LoopOptions(
        steps, lr, seed, warm_up=200, ema=ema_decay, weight_decay=weight_decay, save_seconds=save_seconds,
        schedule=learning_rate,
    )  # fmt: skip
    loop = Loop(out, model, options)

    def after_step(step: int) -> None:
        if step % PRINT_EVERY == 0:
            print(json.dumps(lines_of(out / "log.jsonl")[-1]), flush=True)

    loop.run(step_losses, Reporter(), after_step)
    return loop.average.module
