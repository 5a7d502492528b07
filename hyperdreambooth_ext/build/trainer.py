"""The hypernetwork's training on a build's faces: diffusion loss, identity loss, targets where there are some."""

import io
import time
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import save

from ..errors import UserError
from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import WeightDecoder
from ..hypernet.latent_recogniser import Readers
from ..hypernet.training import Batch, IdentityLoss, Lesson, Preserved, drawn_noise, training_losses
from ..personalize.preview import Sampling, Stopped
from ..personalize.style_prior import WITHIN, StylePrior, some_styles
from ..personalize.subject import class_prompt
from .eyes import Eyes
from .folder import Folder
from .loop import Loop, LoopOptions, append_line, drop_lines_after, lines_of
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .progress import BuildProgress, Clock, Paused, Reporter
from .score import Score, held_out_score, write_sheet
from .store import FaceStore
from .weights import placed


class Trainer:
    """One training; `run` goes on from the folder's state."""

    def __init__(
        self, folder: Folder, options: BuildOptions, store: FaceStore, prepared: Prepared, host: Host, eyes: Eyes,
        decoder: WeightDecoder, readers: Readers | None, reporter: Reporter, processes: Processes,
    ) -> None:  # fmt: skip
        self.folder, self.options, self.store, self.prepared = folder, options, store, prepared
        self.host, self.eyes, self.reporter, self.processes = host, eyes, reporter, processes
        self.decoder = placed(decoder, host.device)
        self.size = options.size or host.default_size
        self.people = np.arange(options.held_out, prepared.count)
        self.part = processes.slice_of(options.batch)
        self.lesson = Lesson(beta=options.beta, identity=self._identity_loss(readers))
        if len(self.people) < options.batch:
            raise UserError(
                f"A batch of {options.batch} is more than the {len(self.people)} faces there are to learn from: say "
                "--batch with fewer, or --faces with more."
            )
        prompt = decoder.config.prompt
        self.styled = int(options.styled * options.batch)
        with host.frozen():
            self.styles = StylePrior.of(host, prompt, class_prompt(prompt)) if self.styled else None
        self.scores = folder.training / "scores.jsonl"
        self._newest: dict[str, float] | None = None

    def _identity_loss(self, readers: Readers | None) -> IdentityLoss | None:
        if readers is None:
            return None
        options = self.options
        # All people of the batch, so that several processes draw whom one would.
        drawn = self.part.stop - self.part.start if options.drawn_weight else 0
        return IdentityLoss(
            readers, options.identity_weight, drawn, options.drawn_weight, self.decoder.config.prompt
        )  # fmt: skip

    def run(self, steps: int) -> None:
        """Train to `steps`. Raises Paused, FileError, TrainingError."""
        options = self.options
        loop_options = LoopOptions(steps, options.lr, options.seed, ema=options.ema, precision=options.precision)
        loop = Loop(self.folder.training, self.decoder, loop_options, self.processes)
        drop_lines_after(self.scores, loop.step)

        def after_step(step: int) -> None:
            if step % options.evaluate_every == 0 or step == steps:
                self._evaluate(loop, step)
            self._tell(step, steps, clock.left(step))

        with self.host.frozen():
            # A run that was killed while it measured does that first.
            if loop.step == 0 or loop.step % options.evaluate_every == 0 or loop.step == steps:
                self._evaluate(loop, loop.step)
            self._tell(loop.step, steps, None)
            clock = Clock(loop.step, steps)  # from here: a first look at the held-out faces is no step
            loop.run(self.losses_of, self.reporter, after_step)

    def losses_of(self, step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The losses of one step: this process's part of the batch that all processes share."""
        chosen = rng.choice(self.people, self.options.batch, replace=False)
        seen, shown = rng.integers(0, 2, (2, len(chosen)))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        part, rows = self.part, np.arange(self.part.stop - self.part.start)
        chosen, seen, shown = chosen[part], seen[part], shown[part]
        device, lesson = self.host.device, self.lesson
        latents = self.prepared.rows("latents", chosen)[rows, shown].float().to(device)
        noise, timesteps = drawn_noise(self.host, (self.options.batch, *latents.shape[1:]), generator, lesson)
        batch = Batch(
            self.prepared.rows("features", chosen)[rows, seen].float().to(device), latents,
            [self.decoder.config.prompt] * len(chosen), noise=noise[part], timesteps=timesteps[part],
        )  # fmt: skip
        if lesson.identity is not None:
            drawing = torch.randn(noise.shape, generator=generator)[part]
            batch = replace(batch, identities=self.prepared.rows("identities", chosen).to(device), drawing=drawing)
        batch = replace(batch, preserved=self._preserved(latents, generator))
        if step < self.options.warm_up:
            lesson = Lesson(alpha=0.0, beta=1.0)
        if lesson.beta:
            batch = replace(batch, targets=self.prepared.targets(chosen).to(device))
        return training_losses(self.host, self.decoder, batch, generator, lesson)

    def _preserved(self, latents: torch.Tensor, generator: torch.Generator) -> Preserved | None:
        """Of the styled people of the whole batch those who are in this process's part, whose `latents` these are."""
        if self.styles is None:
            return None
        lesson, device = Lesson(timesteps=WITHIN), self.host.device
        noise, timesteps = drawn_noise(self.host, (self.styled, *latents.shape[1:]), generator, lesson)
        styles = some_styles(self.styled, generator)
        people = torch.arange(self.styled) * self.options.batch // self.styled
        mine = (people >= self.part.start) & (people < self.part.stop)
        if not mine.any():
            return None
        people = people[mine] - self.part.start
        asked = self.styles.asked(
            self.host, latents[people], noise[mine].to(latents), timesteps[mine].to(device), styles[mine].to(device)
        )  # fmt: skip
        # So that the mean over all processes is that over all styled people.
        share = len(people) * self.processes.count / self.styled
        return Preserved(
            people, asked.noisy, asked.timesteps, [self.styles.prompts[style] for style in styles[mine].tolist()],
            asked.wanted, self.options.style_weight * share,
        )  # fmt: skip

    def seconds_per_step(self, timed: int = 4) -> float:
        """What a step takes here; the weights stay as they are. The first one is not counted."""
        with self.host.frozen():
            for step in range(timed + 1):
                if step == 1:
                    began = time.monotonic()
                losses = self.losses_of(step, np.random.default_rng(step))
                losses["loss"].backward()
                losses["loss"].item()  # waits for a graphics card
                self.decoder.zero_grad(set_to_none=True)
                self.reporter.check()
        return (time.monotonic() - began) / timed

    def _evaluate(self, loop: Loop, step: int) -> None:
        """Score the averaged weights, draw the sheet, keep them if they are the best so far."""
        if self.processes.first and not any(line["step"] == step for line in lines_of(self.scores)):
            # First the state: what takes minutes must not cost minutes again.
            loop.save()
            decoder = loop.average.module if step else self.decoder
            sampling = Sampling(self.options.score_steps, size=self.size)
            try:
                score = held_out_score(
                    self.host, decoder, self.prepared, self.eyes, self.options.held_out, sampling,
                    self.reporter.should_pause if self.processes.count == 1 else lambda: False,
                )  # fmt: skip
            except Stopped as stopped:
                raise Paused from stopped
            self._sheet(step, score)
            if not step or score.margin > max(line["margin"] for line in lines_of(self.scores)):
                weights = {key: value.cpu().contiguous() for key, value in decoder.state_dict().items()}
                write_atomically(self.folder.best, save(weights, {"step": str(step)}))
            append_line(self.scores, {"step": step, "margin": round(score.margin, 4), **score.figures})
        self._newest = next(reversed(lines_of(self.scores)), None)
        self.processes.wait()

    def _sheet(self, step: int, score: Score) -> None:
        before = self.folder.training / "before.npz"
        if not step:
            content = io.BytesIO()
            np.savez_compressed(content, pictures=np.stack(score.pictures))
            write_atomically(before, content.getvalue())
        first = list(np.load(before)["pictures"])
        title = f"After {step} steps: likeness {score.figures['likeness']:.2f}, rank-1 {score.figures['rank1']:.2f}"
        write_sheet(self.folder.training / "sheet.png", title, self.store, first, score.pictures)

    def _tell(self, step: int, steps: int, eta_seconds: float | None) -> None:
        sheet = self.folder.training / "sheet.png"
        shown = sheet if self._newest else None
        self.reporter.tell(BuildProgress("train", step, steps, eta_seconds, sheet=shown, score=self._newest))


def best_score(folder: Folder) -> dict[str, float] | None:
    """The figures of the weights that are kept, None before the first."""
    lines = lines_of(folder.training / "scores.jsonl")
    return max(lines, key=lambda line: line["margin"]) if lines else None
