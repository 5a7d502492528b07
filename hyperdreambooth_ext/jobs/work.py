"""What a job does, stage by stage: face, predict, finetune, saving, pictures."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import TrainingError
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..images.sheet import jpeg
from ..lidb import file
from ..lidb.injection import Applied
from ..personalize.finetune import Progress
from ..personalize.personalize import Callbacks, Personalized, personalize, save
from ..personalize.personalize import Stage as LearningStage
from ..personalize.starts import Start
from ..sampling.sampler import Sampling, Stopped, sample
from .backend import Backend
from .identity import Identity, compare
from .job import Cancelled, Job, Result, Stage
from .pace import Pace
from .task import Task

PREVIEW = Sampling(steps=8)
NO_HYPERNETWORK = (
    "No hypernetwork fits this checkpoint: started along the first gradient. "
    "Build hypernetwork makes one that starts closer to the person."
)


class Work:
    """One job on one backend; `run` is called once, from the job's thread."""

    def __init__(self, job: Job, backend: Backend) -> None:
        self.job, self.backend = job, backend
        self.task = job.task
        self.pace = Pace()
        self._preview_prompt = ""

    def run(self) -> Result:
        """Do all of it. Raises Cancelled when interrupted, UserError for what the user can act on."""
        started = time.monotonic()
        self.job.update(message="Waiting for the model.")
        with self.backend.model() as host:
            # Kept with the job: a full disk must not cost what was learned.
            learned = self.job.learned = self.job.learned or self._learn(host)
            if self._interrupted() and not self.job.keep:
                raise Cancelled(learned)
            self.job.obeyed()
            # Saved before anything else can go wrong, and the pictures show what the file holds.
            path = save(learned, self.backend.lidb_dir(), self.task.overwrite, self._callbacks(host))
            # While the model is ours: the program may load another one after that, and patches torch meanwhile.
            shown = _compared(learned.crop, self._pictures(host, path, learned))
        self.backend.saved(path)
        return Result(
            path=path,
            file_bytes=path.stat().st_size,
            seconds=round(time.monotonic() - started, 2),
            steps=learned.steps,
            start=learned.start,
            start_reason=self.job.status().start_reason,
            name=learned.info.name,
            trigger=learned.info.trigger,
            seed=learned.info.seed,
            photo=jpeg(learned.crop),
            **shown,
        )

    def _learn(self, host: Host) -> Personalized:
        """Face, prediction and finetune; what was learned until an interrupt."""
        task, hypernetwork = self.task, None
        if task.start not in ("gradient", "zero"):
            hypernetwork = self.backend.hypernetwork(host, task.hypernetwork)
        callbacks = self._callbacks(host, hypernetwork)
        try:
            return personalize(task.photo, task.request(task.name), host, hypernetwork, callbacks)
        except TrainingError as error:
            if self._interrupted():
                raise Cancelled from error
            raise

    def _callbacks(self, host: Host, hypernetwork: Hypernetwork | None = None) -> Callbacks:
        """Told by the main job, and told on to the job's status."""
        iterations, picture_steps = self.task.finetune().steps, 2 * self.task.picture_steps

        def on_stage(stage: LearningStage) -> None:
            if stage in ("face", "predict") and self._interrupted():
                raise Cancelled
            self._stage(stage, iterations if stage == "finetune" else 0)

        def on_start(start: Start, prompt: str) -> None:
            self._preview_prompt = prompt
            self.job.update(start=start, start_reason=start_reason(self.task, start, hypernetwork, host))

        def on_step(progress: Progress) -> None:
            self.pace.iteration()
            self._step(progress.step, self.pace.left(iterations - progress.step, picture_steps))
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
        with contextlib.suppress(Stopped):
            picture = self._picture(host, self._preview_prompt, PREVIEW, [Applied(progress.lidb)])
            status = self.job.update(preview=jpeg(picture), preview_step=progress.step)
            self.backend.report(status.stage, status.step, status.steps, Image.fromarray(picture))

    def _pictures(self, host: Host, path: Path, learned: Personalized) -> tuple[np.ndarray, np.ndarray] | None:
        """Without and with the LiDB of the file at one seed; None when interrupted or when the model was changed."""
        if host.checkpoint_hash != learned.info.checkpoint_hash:
            return None
        sampling = Sampling(steps=self.task.picture_steps)
        total = 2 * sampling.steps
        self._stage("pictures", total, "Sampling the pictures before and after.")
        self.pace.begin()

        def on_step() -> None:
            self.pace.sampling()
            step = self.job.status().step + 1
            self._step(step, self.pace.left(0, total - step))

        lidb, info = file.load(path, self.backend.hypernetwork_dirs())
        prompt = f"a {info.trigger} face"
        try:
            before = self._picture(host, prompt, sampling, [], on_step)
            return before, self._picture(host, prompt, sampling, [Applied(lidb)], on_step)
        except Stopped:
            return None

    def _picture(
        self, host: Host, prompt: str, sampling: Sampling, applied: list[Applied], on_step=lambda: None
    ) -> np.ndarray:
        sampling = replace(sampling, seed=self.task.seed, size=self.task.size)
        return sample(host, prompt, sampling, applied, on_step, self._interrupted)

    def _stage(self, stage: Stage, steps: int = 0, message: str = "") -> None:
        self.job.update(stage=stage, step=0, steps=steps, message=message)
        self.backend.report(stage, 0, steps, None)

    def _step(self, step: int, eta_seconds: float | None) -> None:
        status = self.job.update(step=step, eta_seconds=eta_seconds)
        self.backend.report(status.stage, step, status.steps, None)

    def _interrupted(self) -> bool:
        return self.job.stopping or self.backend.interrupted()


def _compared(crop: np.ndarray, pictures: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
    """A result's pictures, and how alike they are to the photo's face."""
    if pictures is None:
        return {"identity_words": Identity.without("the pictures were left out").words}
    before, after = pictures
    identity = compare(crop, before, after)
    return {
        "before": jpeg(before), "after": jpeg(after), "identity": identity.score,
        "identity_before": identity.score_before, "identity_words": identity.words,
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
