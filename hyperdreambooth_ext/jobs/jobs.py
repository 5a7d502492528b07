"""The queue of jobs: one personalization at a time, in a thread of its own."""

import threading
import uuid
from collections import OrderedDict, deque
from pathlib import Path

from ..errors import UserError
from ..personalize.options import PersonalizeOptions
from ..personalize.personalize import destination
from ..temporary import remove_leftovers
from .backend import Backend
from .building import Builder
from .failure import failure_message
from .forecast import Forecast, Timings, forecast
from .job import Cancelled, Job, JobStatus, Result, Stage
from .library import export, forget_deleted
from .task import Task
from .work import Work

MAX_WAITING = 4
# Ended jobs that can still be asked about.
MAX_REMEMBERED = 20


class QueueFull(UserError):
    """Too many jobs wait already."""


class UnknownJob(UserError):
    """No job has this id, or it ended long ago."""


class Studio:
    """Takes tasks, does one after the other, and tells how they fare. All methods can be called from any thread."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.builder = Builder(backend)
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self.timings = Timings(backend.builds_dir() / "timings.json")
        # What a process that was killed while it saved has left.
        remove_leftovers(backend.lidb_dir())
        forget_deleted(backend.lidb_dir())

    def submit(self, task: Task) -> str:
        """Put a task in the queue and return the job's id.

        Raises UserError when the model or a value cannot be used, FileError when the name is taken, QueueFull when
        MAX_WAITING jobs wait already.
        """
        task = task.checked()
        unfit = self.backend.unfit()
        if unfit:
            raise UserError(unfit)
        destination(self.backend.lidb_dir(), task.name, task.overwrite)
        job = Job(uuid.uuid4().hex[:12], task)
        self._enqueue(job)
        return job.status().id

    def forecast(self, options: PersonalizeOptions) -> Forecast | None:
        """What a job with these options will be like; None while no model is loaded. Raises UserError."""
        host = self.backend.peek()
        return None if host is None else forecast(host, options, self.backend.hypernetwork_dirs(), self.timings)

    def export(self, folder: Path, name: str, overwrite: bool = False) -> Path:
        """Write the LiDB of that name in `folder` as a LoRA beside it; the LoRA's path. Raises FileError."""
        path = export(folder, name, overwrite, self.backend.hypernetwork_dirs())
        self.backend.saved(path)
        return path

    def check_room(self) -> None:
        """Raises QueueFull when a task could not be taken now."""
        with self._lock:
            self._check_room()

    def _check_room(self) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} jobs wait already: try again when one of them is done.")

    def job(self, id: str) -> JobStatus:
        """Where a job is. Raises UnknownJob."""
        job = self._find(id)
        with self._lock:
            ahead = self._waiting.index(job) + 1 if job in self._waiting else 0
        status = job.status()
        return status if status.waiting == ahead else job.update(waiting=ahead)

    def jobs(self) -> list[JobStatus]:
        """All jobs that are remembered, the oldest first."""
        with self._lock:
            return [job.status() for job in self._jobs.values()]

    def interrupt(self, id: str, keep: bool = False) -> JobStatus:
        """Stop within one step; with `keep` what was learned is saved, otherwise `keep(id)` can still do so.

        An interrupt while the pictures are sampled leaves them out: the LiDB is saved by then. A waiting job leaves the
        queue; one that has ended stays as it is. Raises UnknownJob.
        """
        job = self._find(id)
        with self._lock:
            waited = job in self._waiting
            if waited:
                self._waiting.remove(job)
        if waited:
            _end(job, "cancelled", "Taken out of the queue.")
            return job.status()
        if not job.status().ended:
            job.stop(keep)
            job.update(message="Stopping after this step.")
        return job.status()

    def keep(self, id: str) -> JobStatus:
        """Save what an interrupted job had learned.

        Raises UnknownJob, QueueFull, and UserError when there is nothing or a job of the same name is under way.
        """
        return self._take_up(id, keep=True)

    def resume(self, id: str) -> JobStatus:
        """Learn on where an interrupted job stopped. Raises as `keep` does."""
        return self._take_up(id, keep=False)

    def _take_up(self, id: str, keep: bool) -> JobStatus:
        job = self._find(id)
        with self._lock:
            before = job.status()
            if not (before.can_keep if keep else before.can_continue):
                raise UserError("There is nothing to keep: this job was not interrupted after its first step.")
            job.update(can_keep=False, can_continue=False)
        job.keep = keep
        try:
            self._enqueue(job)
        except UserError:
            job.update(can_keep=before.can_keep, can_continue=before.can_continue)
            raise
        return job.status()

    def _find(self, id: str) -> Job:
        with self._lock:
            job = self._jobs.get(id)
        if job is None:
            raise UnknownJob("This job is not known any more: start a new one.")
        return job

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            self._check_room()
            name = job.status().name
            if name in self._names_under_way():
                raise UserError(f'A job for the name "{name}" is under way: wait for it, or take another name.')
            job.obeyed()
            job.update(stage="queued", step=0, steps=0, eta_seconds=None, message="Waiting for its turn.")
            self._jobs[job.status().id] = job
            self._waiting.append(job)
            self._forget_old()
            if self._running is None:
                self._running = self._waiting.popleft()
                threading.Thread(target=self._work, name="hyperdreambooth", daemon=True).start()

    def _names_under_way(self) -> set[str]:
        # A job has ended a moment before its thread takes the next one: it stands in nobody's way, nor in its own.
        statuses = [job.status() for job in [*self._waiting, self._running] if job is not None]
        return {status.name for status in statuses if not status.ended}

    def _forget_old(self) -> None:
        ended = [id for id, job in self._jobs.items() if job.status().ended]
        for id in ended[: max(0, len(self._jobs) - MAX_REMEMBERED)]:
            del self._jobs[id]

    def _work(self) -> None:
        """Do the running job and all that wait; the thread ends with the last one."""
        while True:
            with self._lock:
                job = self._running
            if job is None:
                return
            self._do(job)
            with self._lock:
                self._running = self._waiting.popleft() if self._waiting else None

    def _do(self, job: Job) -> None:
        """Run one job; whatever happens is told in its status."""
        try:
            result = Work(job, self.backend, self.timings).run()
        except Cancelled as cancelled:
            job.learned = cancelled.learned
            _end(job, "cancelled", _cancelled_message(job))
        except Exception as error:  # the thread's outermost frame: nobody else would tell the user
            _end(job, "failed", failure_message(error))
        else:
            job.learned = None
            job.update(preview=b"")
            _end(job, "done", "Done.", result=result)


def _end(job: Job, stage: Stage, message: str, result: Result | None = None) -> None:
    job.forget_photo()
    can_keep = job.learned is not None
    can_continue = job.learned is not None and job.learned.steps < job.task.finetune().steps
    job.update(
        stage=stage, message=message, eta_seconds=None, can_keep=can_keep, can_continue=can_continue, result=result
    )  # fmt: skip


def _cancelled_message(job: Job) -> str:
    if job.learned is None:
        return "Interrupted before the first iteration: there is nothing to keep."
    steps = job.learned.steps
    return f"Interrupted after {steps} iteration{'s' if steps > 1 else ''}: nothing is saved yet."
