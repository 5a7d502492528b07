"""The build of a hypernetwork as a job: begun, paused, gone on with, and never in the way of a picture."""

import gc
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.file import Found, list_hypernetworks
from ..pretrain.build import build
from ..pretrain.progress import BuildProgress, Paused, Reporter, Stage
from .backend import Backend
from .failure import failure_message

State = Literal["idle", "running", "waiting", "pausing", "paused", "failed", "done"]
# So long the model is left alone after somebody else has used it: a user makes one picture after the other.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class BuildStatus:
    """A snapshot. `sheet` is a PNG, empty before the first; `message` a sentence for the user; `file` what was made."""

    state: State = "idle"
    stage: Stage | None = None
    done: int = 0
    total: int = 0
    eta_seconds: float | None = None
    score: dict[str, float] | None = None
    message: str = ""
    folder: Path | None = None
    file: Path | None = None
    sheet: bytes = field(default=b"", repr=False)

    @property
    def working(self) -> bool:
        """Whether something will happen by itself."""
        return self.state in ("running", "waiting", "pausing")


class Builder:
    """The one build of this program, in a thread of its own. All methods can be called from any thread."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._lock = threading.Lock()
        self._status = BuildStatus()
        self._wanted: dict[str, Any] = {}
        self._pause = False
        self._sheet_time = 0

    def status(self) -> BuildStatus:
        """Where it is."""
        with self._lock:
            return self._status

    def start(self, wanted: dict[str, Any]) -> None:
        """Begin a build for the loaded checkpoint, or go on with the one that was begun for it.

        `wanted`: the build's options by name. Raises UserError while one is under way, or when the model cannot be
        used.
        """
        self._begin(wanted, BuildStatus())

    def resume(self) -> None:
        """Go on with what was paused or failed, with the options that it was begun with. Raises UserError."""
        # What a build was begun with stands in its folder.
        self._begin({}, self.status())

    def _begin(self, wanted: dict[str, Any], shown: BuildStatus) -> None:
        """Start the thread; until it has something new to tell, the page goes on showing `shown`."""
        unfit = self.backend.unfit()
        if unfit:
            raise UserError(unfit)
        with self._lock:
            if self._status.working:
                raise UserError("A hypernetwork is being built already: pause it first.")
            self._wanted, self._pause = dict(wanted), False
            self._sheet_time = self._sheet_time if shown.sheet else 0
            self._status = replace(
                shown, state="running", message="Waiting for the model.", eta_seconds=None, file=None
            )  # fmt: skip
        threading.Thread(target=self._work, name="hyperdreambooth-build", daemon=True).start()

    def pause(self) -> None:
        """Stop within one step; everything that was made is kept on the disk."""
        with self._lock:
            if self._status.working:
                self._pause = True
                self._status = replace(self._status, state="pausing", message="Stopping after this step.")

    def hypernetworks(self) -> list[Found]:
        """All hypernetworks that are there now, damaged ones with the reason."""
        return [found for folder in self.backend.hypernetwork_dirs() for found in list_hypernetworks(folder)]

    def _work(self) -> None:
        try:
            while not self._slice():
                self._change(state="waiting", message="Paused while a picture is generated.")
                self._yield_to_others()
        except Exception as error:  # the thread's outermost frame: nobody else would tell the user
            self._change(state="failed", message=failure_message(error), eta_seconds=None)

    def _slice(self) -> bool:
        """Work until it is done or paused (True), or until somebody else wants the model (False)."""
        gives_way = False
        try:
            with self.backend.model() as host:
                self._change(state="pausing" if self._pause else "running", message="", file=None)
                try:
                    file = self._built(host)
                except Paused:
                    # Asked while the model is still ours: who gets it afterwards no longer waits.
                    gives_way = self.backend.wanted() and not self._pause
                    raise
        except Paused:
            if not gives_way:
                self._change(state="paused", message="Paused: Resume goes on from here.", eta_seconds=None)
            return not gives_way
        finally:
            _free_memory()
        self._change(
            state="done", file=file, eta_seconds=None,
            message="" if file is None else f"{file.name} is used from the next personalization on.",
        )  # fmt: skip
        return True

    def _built(self, host: Host) -> Path | None:
        folder = self.backend.builds_dir() / f"{host.checkpoint_name or 'checkpoint'}-{host.checkpoint_hash}"
        self._change(folder=folder)
        begun = (folder / "build.json").exists()
        if not begun and not self._wanted:
            raise UserError("No build was begun for this checkpoint yet: press Start.")
        destination = self.backend.hypernetwork_dirs()[0]
        return build(folder, self._wanted, host, destination, Reporter(self._tell, self._should_pause))

    def _should_pause(self) -> bool:
        return self._pause or self.backend.wanted() or self.backend.interrupted()

    def _yield_to_others(self) -> None:
        """Wait until nobody else has wanted the model for a while, or until it is told to pause."""
        quiet_since = time.monotonic()
        while not self._pause and time.monotonic() - quiet_since < PATIENCE_SECONDS:
            if self.backend.wanted():
                quiet_since = time.monotonic()
            time.sleep(0.05)

    def _tell(self, progress: BuildProgress) -> None:
        changes: dict[str, Any] = {
            "stage": progress.stage, "done": progress.done, "total": progress.total,
            "eta_seconds": progress.eta_seconds,
        }  # fmt: skip
        if progress.score is not None:
            changes["score"] = progress.score
        if progress.sheet is not None and (changed := progress.sheet.stat().st_mtime_ns) != self._sheet_time:
            changes["sheet"], self._sheet_time = progress.sheet.read_bytes(), changed
        self._change(**changes)
        self.backend.report(progress.stage, progress.done, progress.total, None)

    def _change(self, **changes: Any) -> None:
        with self._lock:
            if self._pause and changes.get("state") in ("running", "waiting"):
                changes["state"] = "pausing"
            self._status = replace(self._status, **changes)


def _free_memory() -> None:
    """What a build holds of the graphics card's memory is somebody else's now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
