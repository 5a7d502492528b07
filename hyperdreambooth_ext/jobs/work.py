"""What a job does, stage by stage: face, predict, finetune, saving, pictures."""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FileError, TrainingError
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..images.sheet import jpeg
from ..lidb import file
from ..lidb.injection import Applied
from ..personalize.finetune import Progress
from ..personalize.personalize import Callbacks, Personalized, face_prompt, personalize, save
from ..personalize.personalize import Stage as LearningStage
from ..personalize.starts import Start
from ..sampling.sampler import Sampling, Stopped, sample, usual_cfg
from .backend import Backend
from .forecast import Measured, Timings, peak_megabytes
from .identity import compare
from .job import Cancelled, Job, Pair, Result, Stage
from .pace import Pace
from .task import Task

PREVIEW_STEPS = 8
NO_HYPERNETWORK = (
    "No hypernetwork fits this checkpoint: started along the first gradient. "
    "Build hypernetwork makes one that starts closer to the person."
)


@dataclass(frozen=True)
class Compared:
    """Pictures of one seed without and with the LiDB, RGB uint8 [S, S, 3]."""

    seed: int
    before: np.ndarray
    after: np.ndarray


class Work:
    """One job on one backend; `run` is called once, from the job's thread."""

    def __init__(self, job: Job, backend: Backend, timings: Timings) -> None:
        self.job, self.backend, self.timings = job, backend, timings
        self.task = job.task
        self.pace = Pace()
        self._trigger = ""

    def run(self) -> Result:
        """Do all of it. Raises Cancelled when interrupted, UserError for what the user can act on."""
        self.job.update(message="Waiting for the model.")
        with self.backend.model() as host:
            began = time.monotonic()
            try:
                path, learned, shown = self._run(host)
            finally:
                self.job.seconds += time.monotonic() - began
            self._note_timing(host, learned)
        return Result(
            path=path,
            file_bytes=path.stat().st_size,
            seconds=round(self.job.seconds, 2),
            steps=learned.steps,
            start=learned.start,
            start_reason=self.job.status().start_reason,
            name=learned.info.name,
            trigger=learned.info.trigger,
            seed=learned.info.seed,
            photo=jpeg(learned.crop),
            size=host.default_size,
            cfg=usual_cfg(host.default_size),
            **shown,
        )

    def _run(self, host: Host) -> tuple[Path, Personalized, dict[str, Any]]:
        # Kept with the job: a full disk must not cost what was learned.
        learned = self.job.learned
        if learned is None or not (self.job.keep or learned.steps >= self.task.finetune().steps):
            learned = self.job.learned = self._learn(host, learned)
        if self._interrupted() and not self.job.keep:
            raise Cancelled(learned)
        self.job.obeyed()
        # Saved before anything else can go wrong, and the pictures show what the file holds.
        path = save(learned, self.backend.lidb_dir(), self.task.overwrite, self._callbacks(host))
        self.backend.saved(path)
        # While the model is ours: the program may load another one after that, and patches torch meanwhile.
        return path, learned, _compared(learned.crop, self._pictures(host, path, learned))

    def _learn(self, host: Host, begun: Personalized | None) -> Personalized:
        """Face, prediction and finetune, or the rest of what was begun; what was learned until an interrupt."""
        task, hypernetwork = self.task, None
        if task.start not in ("gradient", "zero"):
            hypernetwork = self.backend.hypernetwork(host, task.hypernetwork)
        callbacks = self._callbacks(host, hypernetwork)
        try:
            return personalize(task.photo, task.request(task.name), host, hypernetwork, callbacks, begun)
        except TrainingError as error:
            if self._interrupted():
                raise Cancelled(begun) from error
            raise

    def _callbacks(self, host: Host, hypernetwork: Hypernetwork | None = None) -> Callbacks:
        """Told by the main job, and told on to the job's status."""
        iterations, sampling_steps = self.task.finetune().steps, self._sampling_steps

        def on_stage(stage: LearningStage) -> None:
            if stage in ("face", "predict") and self._interrupted():
                raise Cancelled
            self._stage(stage, iterations if stage == "finetune" else 0)

        def on_start(start: Start, trigger: str) -> None:
            self._trigger = trigger
            self.job.update(start=start, start_reason=start_reason(self.task, start, hypernetwork, host))

        def on_step(progress: Progress) -> None:
            self.pace.iteration()
            self._step(progress.step, self.pace.left(iterations - progress.step, sampling_steps))
            self._preview(host, progress)

        def should_stop() -> bool:
            # Asked right before each iteration: the time of a preview is none of the next one's.
            self.pace.begin()
            return self._interrupted()

        return Callbacks(on_stage, lambda crop: self.job.update(photo=jpeg(crop)), on_start, on_step, should_stop)

    def _preview(self, host: Host, progress: Progress) -> None:
        every = self.task.preview_every
        due = every and (progress.step % every == 0 or progress.step == 1) and progress.step < progress.steps
        if not due or self._interrupted():
            return
        sampling = Sampling(PREVIEW_STEPS, seed=self.task.seed)
        with contextlib.suppress(Stopped):
            picture = self._picture(host, self._trigger, sampling, [Applied(progress.lidb)])
            status = self.job.update(preview=jpeg(picture), preview_step=progress.step)
            self.backend.report(status.stage, status.step, status.steps, Image.fromarray(picture))

    @property
    def _sampling_steps(self) -> int:
        """Of all pictures before and after."""
        return 2 * self.task.pictures * self.task.picture_steps

    def _pictures(self, host: Host, path: Path, learned: Personalized) -> list[Compared]:
        """Without and with the LiDB of the file; none when interrupted or when the model was changed meanwhile."""
        if host.checkpoint_hash != learned.info.checkpoint_hash:
            return []
        total = self._sampling_steps
        self._stage("pictures", total)
        self.pace.begin()

        def on_step() -> None:
            self.pace.sampling()
            step = self.job.status().step + 1
            self._step(step, self.pace.left(0, total - step))

        lidb, info = file.load(path, self.backend.hypernetwork_dirs())
        found = []
        with contextlib.suppress(Stopped):
            for seed in range(self.task.seed, self.task.seed + self.task.pictures):
                sampling = Sampling(self.task.picture_steps, seed=seed)
                before = self._picture(host, info.trigger, sampling, [], on_step)
                after = self._picture(host, info.trigger, sampling, [Applied(lidb)], on_step)
                found.append(Compared(seed, before, after))
        return found

    def _picture(
        self, host: Host, trigger: str, sampling: Sampling, applied: list[Applied], on_step=lambda: None
    ) -> np.ndarray:
        sampling = replace(sampling, size=self.task.size)
        return sample(host, face_prompt(trigger), sampling, applied, on_step, self._interrupted)

    def _note_timing(self, host: Host, learned: Personalized) -> None:
        """For the forecast of the next job like this one."""
        iteration, sampling = self.pace.seconds
        if iteration is None or sampling is None:
            return
        other = self.job.seconds - learned.steps * iteration - self._sampling_steps * sampling
        measured = Measured(iteration, sampling, max(0.0, other), peak_megabytes(host.device))
        with contextlib.suppress(FileError):
            # A forecast is not worth an error.
            self.timings.note(host, self.task.size or host.default_size, measured)

    def _stage(self, stage: Stage, steps: int = 0, message: str = "") -> None:
        self.job.update(stage=stage, step=0, steps=steps, message=message)
        self.backend.report(stage, 0, steps, None)

    def _step(self, step: int, eta_seconds: float | None) -> None:
        status = self.job.update(step=step, eta_seconds=eta_seconds)
        self.backend.report(status.stage, step, status.steps, None)

    def _interrupted(self) -> bool:
        return self.job.stopping


def _compared(crop: np.ndarray, found: list[Compared]) -> dict[str, Any]:
    """A result's pictures, and the recognizer's cosines of the first two."""
    if not found:
        return {"identity_words": "No identity score: the pictures were left out."}
    identity = compare(crop, found[0].before, found[0].after)
    return {
        "pictures": tuple(Pair(one.seed, jpeg(one.before), jpeg(one.after)) for one in found),
        "identity": identity.score, "identity_before": identity.score_before, "identity_words": identity.words,
    }  # fmt: skip


def start_reason(task: Task, start: Start, hypernetwork: Hypernetwork | None, host: Host) -> str:
    """Why `start` was chosen for `task`."""
    if task.start in ("gradient", "zero"):
        return f"The {task.start} start was chosen."
    if start != "hypernetwork" or hypernetwork is None:
        return NO_HYPERNETWORK
    reason = "Started from the hypernetwork made for this checkpoint."
    if hypernetwork.config.checkpoint_hash != host.checkpoint_hash:
        made_for = hypernetwork.config.checkpoint or "another checkpoint"
        reason = f"Started from a hypernetwork of the same architecture, made for {made_for}."
    if task.hypernetwork:
        reason = f"{reason.rstrip('.')}, {task.hypernetwork}, which was chosen by name."
    return reason
