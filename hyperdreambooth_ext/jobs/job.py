"""One job's state, shared between its worker and everybody who looks at it."""

import threading
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..images.photo import Photo
from ..personalize.personalize import Personalized
from .status import JobStatus
from .task import Task


class Cancelled(Exception):
    """The job was interrupted. `learned` is what it had by then, None when that is nothing."""

    def __init__(self, learned: Personalized | None = None) -> None:
        super().__init__("interrupted")
        self.learned = learned


class Job:
    """Written by its worker and by `interrupt`; `status()` is a snapshot, safe from any thread."""

    def __init__(self, id: str, task: Task) -> None:
        self._lock = threading.Lock()
        self._status = JobStatus(id=id, name=task.name)
        self._stop = False
        self._task: Task | None = task
        self.keep = False
        """Save what was learned although it was interrupted."""
        self.learned: Personalized | None = None

    @property
    def task(self) -> Task:
        """What was asked for. Raises UserError once the job has ended for good and the photo is forgotten."""
        if self._task is None:
            raise UserError("This job has ended: start a new one.")
        return self._task

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop

    def stop(self, keep: bool) -> None:
        """Stop within one step, and save what was learned if `keep`."""
        self.keep = self.keep or keep
        self._stop = True

    def obeyed(self) -> None:
        """It did stop, and goes on with what shall be kept: only a later interrupt counts from now."""
        self._stop = False

    def status(self) -> JobStatus:
        """Where it is."""
        with self._lock:
            return self._status

    def update(self, **changes: Any) -> JobStatus:
        """Change fields of the status."""
        with self._lock:
            self._status = replace(self._status, **changes)
            return self._status

    def forget_photo(self) -> None:
        """Keep the result, not the photo; the task's other values are needed as long as there is something to keep."""
        if self._task is not None:
            forgotten = replace(self._task, photo=Photo(self._task.photo.pixels[:0]))
            self._task = forgotten if self.learned is not None else None
