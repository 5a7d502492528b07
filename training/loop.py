"""The loop that every training here shares: seeded by step, resumable, with a moving average of the weights.

The average is short, since the learning rate falls to nearly nothing anyway: a long one would drag in early weights.

What a step sees depends on the seed and the step's number alone, so a killed run goes on as if it had not been.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth_ext.files import write_atomically

Step = Callable[[int, np.random.Generator], dict[str, torch.Tensor]]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200, cooldown: float = 0.4) -> float:
    """Constant after a short warm-up, then falling linearly to 2 % of the peak over the last part of the run."""
    falling = int(steps * cooldown)
    scale = min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / max(falling, 1)))
    return peak * scale


def train(
    out: Path,
    model: torch.nn.Module,
    step_losses: Step,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    ema_decay: float = 0.99,
    save_seconds: float = 120,
    weight_decay: float = 0.01,
) -> torch.nn.Module:
    """Train `model` in place for `steps` and return its moving average.

    `step_losses(step, rng)` returns named losses; "loss" is minimised, all are logged to OUT/log.jsonl.
    OUT/state.pt holds everything that a resumed run needs.
    """
    out.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    # One kernel for all parameters where this torch has it on the CPU.
    fused = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=fused)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema_decay)
    )
    first = _resume(out, model, average, optimizer)
    saved, logged, since = time.monotonic(), {}, time.monotonic()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr)
        losses = step_losses(step, np.random.default_rng((seed, step)))
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 2 == 0:
            average.update_parameters(model)
        for name, value in losses.items():
            logged.setdefault(name, []).append(float(value.detach()))
        if (step + 1) % 50 == 0:
            _log(out, step + 1, logged, (time.monotonic() - since) / 50)
            logged, since = {}, time.monotonic()
        if time.monotonic() - saved > save_seconds or step + 1 == steps:
            _save(out, step + 1, model, average, optimizer)
            saved = time.monotonic()
    return average.module


def _log(out: Path, step: int, logged: dict[str, list[float]], seconds: float) -> None:
    line = {
        "step": step,
        "seconds_per_step": round(seconds, 3),
        **{k: round(float(np.mean(v)), 5) for k, v in logged.items()},
    }
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def _save(out: Path, step: int, model, average, optimizer) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with open(out / "state.tmp", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    (out / "state.tmp").replace(out / "state.pt")


def _resume(out: Path, model, average, optimizer) -> int:
    """Take up the state that is there; what a killed run left half written or logged beyond it is removed."""
    (out / "state.tmp").unlink(missing_ok=True)
    if not (out / "state.pt").exists():
        _trim_log(out, 0)
        return 0
    state = torch.load(out / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    _trim_log(out, state["step"])
    return state["step"]


def _trim_log(out: Path, step: int) -> None:
    """Keep the log's whole lines up to `step`: the others will be written again."""
    log = out / "log.jsonl"
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_atomically(log, "".join(f"{line}\n" for line in kept).encode())
