"""The hypernetwork's training on a build's faces: diffusion loss, identity loss, and targets where asked for."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..hypernet.hypernetwork import WeightDecoder
from ..hypernet.latent_identity import LatentIdentityEnsemble
from ..hypernet.loss import IdentityLoss, LossConfig
from ..hypernet.training import Batch, training_losses
from ..personalize.prior_preservation import STYLES
from .batches import Batches
from .context import Context
from .loop import Loop, LoopOptions, append_line, drop_lines_after, lines_of, write_weights
from .options import Kept
from .prepare import Prepared
from .progress import BuildProgress
from .recorded import Losses, RecordedLosses
from .score import held_out_score, write_sheet
from .store import FaceStore, Folder


class Trainer:
    """One training; `run` goes on from the folder's state."""

    def __init__(
        self, context: Context, store: FaceStore, prepared: Prepared, decoder: WeightDecoder,
        identity_net: LatentIdentityEnsemble | None,
    ) -> None:  # fmt: skip
        self.context, self.options, self.folder = context, context.options, context.folder
        self.store, self.prepared, self.decoder = store, prepared, decoder.to(context.host.device)
        options, prompt = self.options, decoder.config.prompt
        faces, part = np.arange(options.held_out, prepared.count), context.processes.slice_of(options.batch)
        if len(faces) < options.batch:
            many = f"A batch of {options.batch} is more than the {len(faces)} faces there are"
            raise UserError(f"{many}: use a smaller one or more faces.", "batch", "faces")
        identity: IdentityLoss | None = None
        if identity_net is not None:
            # The whole batch is sampled, so that several processes sample whom one would.
            weight = options.sampled_identity_weight
            samples = part.stop - part.start if weight else 0
            identity = IdentityLoss(identity_net, options.identity_weight, samples, weight, prompt)
        self.config = LossConfig(beta=options.beta, identity=identity)
        self.batches = Batches(context, prepared, prompt, faces, identity)
        self._losses_of_batch = self._recorded_where_possible()
        self.scores = self.folder.training / "scores.jsonl"

    def run(self, steps: int) -> None:
        """Train to `steps`. Raises Paused, FileError, TrainingError."""
        options = self.options
        loop_options = LoopOptions(steps, options.lr, options.seed, ema=options.ema, precision=options.precision)
        loop = Loop(self.folder.training, self.decoder, loop_options, self.context.processes)
        drop_lines_after(self.scores, loop.step)

        def after_step(step: int) -> None:
            if step % options.evaluate_every == 0 or step == steps:
                self._evaluate(loop, step)
            tell(step, **self._newest())

        with self.context.host.frozen():
            # A run that was killed while it measured does that first.
            if loop.step == 0 or loop.step % options.evaluate_every == 0 or loop.step == steps:
                self._evaluate(loop, loop.step)
            tell = self.context.reporter.begin("train", loop.step, steps)  # from here: a first evaluation is no step
            tell(loop.step, **self._newest())
            loop.run(self.losses_of, self.context.reporter, after_step)
            if self.context.processes.first:
                write_weights(self.folder.last, loop.average.module, loop.step)

    def losses_of(self, step: int, rng: np.random.Generator) -> Losses:
        """The losses of one step: this process's part of the batch that all processes share."""
        warming_up = step < self.options.warm_up
        batch = self.batches.of(rng, with_targets=warming_up or bool(self.config.beta))
        if warming_up:
            config = LossConfig(alpha=0.0, beta=1.0)
            return training_losses(self.context.host, self.decoder, batch, torch.Generator(), config)
        return self._losses_of_batch(batch)

    def _recorded_where_possible(self) -> Callable[[Batch], Losses]:
        """The losses of a batch that holds all that is random; on a graphics card recorded, where every step has the
        same styles, and without fp16, whose gradients are scaled outside."""

        def losses_of(batch: Batch) -> Losses:
            return training_losses(self.context.host, self.decoder, batch, torch.Generator(), self.config)

        count = self.batches.prior_batch
        alike = not count or count >= len(STYLES)
        if not (self.context.host.capturable and alike and self.options.precision != "fp16"):
            return losses_of
        warn = lambda message: self.context.reporter.tell(BuildProgress("train", 0, 1, message=message))  # noqa: E731
        return RecordedLosses(losses_of, [p for p in self.decoder.parameters() if p.requires_grad], warn)

    def seconds_per_step(self, timed: int = 4) -> float:
        """What a step takes here; the weights stay as they are. The first one is not counted; where steps are recorded,
        so many that all kinds have been."""
        first = 12 if isinstance(self._losses_of_batch, RecordedLosses) else 1
        with self.context.host.frozen():
            for step in range(first + timed):
                if step == first:
                    began = time.monotonic()
                self._dry_run(step)
                self.context.reporter.check()
        return (time.monotonic() - began) / timed

    def _dry_run(self, step: int) -> None:
        """A step without its end. In a function of its own: no losses may be alive when the next step is recorded."""
        losses = self.losses_of(step, np.random.default_rng(step))
        if losses["loss"].requires_grad:
            losses["loss"].backward()
        losses["loss"].item()  # waits for a graphics card
        self.decoder.zero_grad(set_to_none=True)

    def _evaluate(self, loop: Loop, step: int) -> None:
        """Score the averaged weights, make the sheet, keep them if they are the best so far."""
        if self.context.processes.first and not any(line["step"] == step for line in lines_of(self.scores)):
            # First the state: what takes minutes must not cost minutes again.
            loop.save()
            decoder = loop.average.module if step else self.decoder
            score = held_out_score(self.context, decoder, self.prepared)
            write_sheet(self.folder.training, step, score, self.store)
            if not step or score.figures["margin"] > max(line["margin"] for line in lines_of(self.scores)):
                write_weights(self.folder.best, decoder, step)
            append_line(self.scores, {"step": step, **score.figures})
        self.context.processes.wait()

    def _newest(self) -> dict[str, Any]:
        """The sheet and the figures of the last evaluation."""
        lines = lines_of(self.scores)
        return {"sheet": self.folder.training / "sheet.png", "score": lines[-1]} if lines else {}


def kept_score(folder: Folder, keep: Kept) -> str:
    """The figures of the best weights or the last, as a file tells them."""
    lines = lines_of(folder.training / "scores.jsonl")
    score = lines[-1] if keep == "last" else max(lines, key=lambda line: line["margin"])
    return ", ".join(f"{name} {value:g}" for name, value in score.items())
