"""A studio on the tiny model, for the tests of the tab, the API and the jobs. Nothing in it is faked."""

import time
from collections.abc import Callable
from pathlib import Path

from hyperdreambooth_ext.cli.backend import StandaloneBackend
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.jobs.job import JobStatus
from hyperdreambooth_ext.jobs.jobs import Studio
from hyperdreambooth_ext.jobs.task import Task
from tests.tiny import Tiny

SHORT = {"steps": 1, "picture_steps": 1, "size": 64}


class WatchedBackend(StandaloneBackend):
    """The real backend, which also lets a test act at each report and notes in which order it was asked."""

    def __init__(self, folder: Path, tiny: Tiny) -> None:
        super().__init__(folder, tiny.checkpoint)
        self.tiny = tiny
        self.on_report: Callable[[str, int], None] = lambda stage, step: None
        self.reports: list[tuple[str, int, int]] = []
        self.saved_while_lent: list[bool] = []

    def hypernetwork_dirs(self) -> list[Path]:
        return [self.tiny.folder]

    def report(self, stage: str, step: int, steps: int, preview: object | None) -> None:
        self.reports.append((stage, step, steps))
        self.on_report(stage, step)

    def saved(self, path: Path) -> None:
        self.saved_while_lent.append(self._lock.locked())

    def again(self, folder: Path) -> "WatchedBackend":
        """The same loaded model with another folder and nothing noted: loading takes a second."""
        fresh = WatchedBackend(folder, self.tiny)
        fresh._host, fresh._fitting = self._host, self._fitting
        return fresh


def ended(studio: Studio, id: str, seconds: float = 60) -> JobStatus:
    """Wait until the job has ended."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        status = studio.job(id)
        if status.ended:
            return status
        time.sleep(0.02)
    raise AssertionError(f"still {studio.job(id)}")


def short_task(photo, name: str, **values) -> Task:
    """A job of less than a second."""
    return Task(Photo(photo), name, **{**SHORT, **values})
