"""The loop of a training: seeded by step, resumable to the bit, averaged, in half precision where asked.

What a step sees depends on the seed and the step's number alone, so a run that was killed goes on as if it had not
been. Saving is by hand, since accelerate's `save_state` writes a folder of files, not one that is whole or absent, and
the sampler's state that it keeps is none here; clipping is torch's, which needs no `Accelerator.prepare`.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # type: ignore[attr-defined]

from ..errors import FileError, TrainingError, UserError
from ..files import write_atomically
from .processes import Processes
from .progress import Reporter

Step = Callable[[int, np.random.Generator], dict[str, torch.Tensor]]
LOG_EVERY = 25
SAFE_BF16 = (2, 4)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def cosine(step: int, steps: int, peak: float, warm_up: int) -> float:
    """A short warm-up, then half a cosine down to 2 % of the peak."""
    falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    return peak * min(1.0, (step + 1) / max(warm_up, 1)) * falling


@dataclass(frozen=True)
class LoopOptions:
    """How to train; `precision` is that of the computation, weights stay float32."""

    steps: int
    lr: float = 1e-3
    seed: int = 0
    warm_up: int = 100
    ema: float = 0.99
    precision: str = "fp32"
    weight_decay: float = 0.01
    save_seconds: float = 120.0
    schedule: Callable[[int, int, float, int], float] = cosine
    """The learning rate of (step, steps, peak, warm-up)."""


class StepCallback(Protocol):
    """What is trained beside the model, on what the same steps made."""

    def after_update(self, step: int) -> dict[str, float]:
        """Called after the model's update of this step, counted from 0; what it returns is logged."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Loop:
    """One training in one folder: state.pt is all that a resumed run needs, log.jsonl tells how it went."""

    def __init__(
        self, folder: Path, model: torch.nn.Module, options: LoopOptions, processes: Processes = Processes(),
        callback: StepCallback | None = None, optimizer: torch.optim.Optimizer | None = None,
    ) -> None:  # fmt: skip
        """`model` is trained in place, with AdamW unless another `optimizer` of its parameters is given. Raises
        FileError for a damaged state, UserError for an impossible precision."""
        self.folder, self.model, self.options, self.processes = folder, model, options, processes
        self.callback = callback
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        device = self.parameters[0].device
        _check_precision(options.precision, device)
        self.device = device
        self.optimizer = optimizer or torch.optim.AdamW(
            self.parameters, lr=options.lr, betas=(0.9, 0.99), weight_decay=options.weight_decay,
            # One kernel for all parameters; on the processor newer torches have it.
            fused=device.type == "cuda" or (device.type == "cpu" and torch_version() >= (2, 4)),
        )  # fmt: skip
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema))  # type: ignore[call-arg]
        # Newer torches have moved it and warn at the old place.
        scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)
        self.scaler = scaler(enabled=options.precision == "fp16")
        # All that a resumed run needs, besides the step.
        self._parts = {"model": model, "average": self.average, "optimizer": self.optimizer, "scaler": self.scaler}
        self._parts |= {} if callback is None else {"callback": callback}
        self.step = self._resume()
        self._saved = time.monotonic()

    def run(self, losses_of: Step, reporter: Reporter, after_step: Callable[[int], None] = lambda step: None) -> None:
        """Train until the last step. `losses_of(step, rng)` gives named losses; "loss" is minimized, all are logged.

        `after_step` is called with the number of steps done; what it does is repeated when a run was killed within it.
        Raises Paused with everything saved; TrainingError when the loss is no number, with the last good state saved.
        """
        sums: dict[str, list[float]] = {}
        while self.step < self.options.steps:
            if self.processes.any(reporter.should_pause()):
                self.save()
                reporter.check()
            began = time.monotonic()
            values = self._one(losses_of)
            for name, value in (values | {"seconds_per_step": time.monotonic() - began}).items():
                sums.setdefault(name, []).append(value)
            if self.step % LOG_EVERY == 0 or self.step == self.options.steps:
                self._log(sums)
                sums = {}
            if time.monotonic() - self._saved > self.options.save_seconds or self.step == self.options.steps:
                self.save()
            after_step(self.step)

    def save(self) -> None:
        """Write state.pt so that at any moment it is the old one or the new one, whole. Raises FileError."""
        self._saved = time.monotonic()
        if not self.processes.first:
            return
        state = {"step": self.step} | {name: part.state_dict() for name, part in self._parts.items()}
        file, temporary = self.folder / "state.pt", self.folder / "state.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise FileError(f"{file} cannot be written ({error}): free some space, then start again.") from error

    def _one(self, losses_of: Step) -> dict[str, float]:
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = options.schedule(self.step, options.steps, options.lr, options.warm_up)
        dtype = DTYPES.get(options.precision)
        with torch.enable_grad(), torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            losses = losses_of(self.step, np.random.default_rng((options.seed, self.step)))
        # Where a step is recorded the gradients are there already.
        if losses["loss"].requires_grad:
            self.scaler.scale(losses["loss"]).backward()
        self.processes.mean([p.grad for p in self.parameters if p.grad is not None])
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        values = {name: float(value.detach()) for name, value in losses.items()}
        finite = math.isfinite(values["loss"]) and (self.scaler.is_enabled() or bool(torch.isfinite(norm)))
        if self.processes.any(not finite):
            sentence = f"The loss stopped being a number at step {self.step}: use a lower learning rate or fp32."
            raise TrainingError(sentence, "lr", "precision")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        if self.callback is not None:
            values |= self.callback.after_update(self.step)
        self.step += 1
        return values

    def _log(self, sums: dict[str, list[float]]) -> None:
        if not self.processes.first:
            return
        means = {name: round(float(np.mean(values)), 5) for name, values in sums.items()}
        append_line(self.folder / "log.jsonl", {"step": self.step, **means})

    def _resume(self) -> int:
        file = self.folder / "state.pt"
        if not file.exists():
            return 0
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            for name, part in self._parts.items():
                # What version 0.1 called "beside" is the callback.
                part.load_state_dict(state[name] if name in state else state["beside"])
        except Exception as error:  # torch raises anything for a damaged file
            raise FileError(f"{file} is damaged ({error}): delete it, and the training begins anew.") from error
        drop_lines_after(self.folder / "log.jsonl", state["step"])
        return state["step"]


def torch_version() -> tuple[int, ...]:
    """Such as (2, 1)."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _check_precision(precision: str, device: torch.device) -> None:
    if device.type == "cuda" or precision == "fp32":
        return
    if precision == "fp16":
        raise UserError("The precision fp16 needs a graphics card: use bf16 here.", "precision")
    # torch 2.1.2's oneDNN writes past its memory in bf16's backward on several threads; 2.11's does not.
    if torch_version() < SAFE_BF16:
        raise UserError(f"On the processor, bf16 is not safe with torch {torch.__version__}: use fp32.", "precision")


def write_weights(file: Path, module: torch.nn.Module, step: int) -> None:
    """Write the module's weights after `step` steps as safetensors. Raises FileError."""
    weights = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
    write_atomically(file, save(weights, {"step": str(step)}))


def append_line(file: Path, line: dict) -> None:
    """One more line of JSON. Raises FileError when the disk is full."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    except OSError as error:
        raise FileError(f"{file} cannot be written ({error.strerror or error}): free some space.") from error


def lines_of(file: Path) -> list[dict]:
    """The lines of a log; one that a kill cut short is left out."""
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def drop_lines_after(file: Path, step: int) -> None:
    """Forget what a killed run had logged past the state that it goes on from, and a line that it left half written."""
    kept = "".join(json.dumps(line) + "\n" for line in lines_of(file) if line["step"] <= step)
    if file.exists() and file.read_text(encoding="utf-8") != kept:
        write_atomically(file, kept.encode())
