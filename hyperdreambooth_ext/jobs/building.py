"""The build of a hypernetwork as a job: begun, paused, gone on with, and never in the way of a picture."""

import gc
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.file import Found, find_hypernetwork, list_hypernetworks, read_config
from ..lidb.layers import Architecture
from ..pretrain.build import build
from ..pretrain.progress import BuildProgress, Paused, Reporter, Stage
from .backend import Backend
from .failure import failure_message

State = Literal["idle", "running", "waiting", "pausing", "paused", "failed", "done"]
_USED = "{} is used from the next personalization on."
_OFFERED = "{} stays in use: compare the held-out scores below, then choose."
_WAITS = "{} was made and is not used yet: compare the held-out scores below, then choose."
# So long the model is left alone after somebody else has used it: a user makes one picture after the other.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class BuildStatus:
    """A snapshot. `sheet` is a PNG, empty before the first; `message` a sentence for the user; `file` what was made,
    and `offered` that it is not used yet, since another one for the same checkpoint is."""

    state: State = "idle"
    stage: Stage | None = None
    done: int = 0
    total: int = 0
    eta_seconds: float | None = None
    score: dict[str, float] | None = None
    message: str = ""
    folder: Path | None = None
    file: Path | None = None
    offered: bool = False
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
        """Where it is; before anything was done here, where the newest build on the disk was left."""
        with self._lock:
            if self._status.state == "idle":
                self._status = _left_on_disk(self.backend.builds_dir(), self.backend.hypernetwork_dirs())
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

    def use(self) -> None:
        """From now on the hypernetwork that was made is taken for its checkpoint. Raises UserError when none waits."""
        with self._lock:
            file = self._status.file
            if file is None or not self._status.offered:
                raise UserError("No new hypernetwork waits to be used: build one first.")
            file = self._install(file)
            self._status = replace(self._status, file=file, offered=False, message=_USED.format(file.name))

    def _install(self, file: Path) -> Path:
        folder = self.backend.hypernetwork_dirs()[0]
        folder.mkdir(parents=True, exist_ok=True)
        # Of several for one checkpoint the newest is taken.
        file.touch()
        return Path(shutil.move(file, folder / file.name))

    def pause(self) -> None:
        """Stop within one step; everything that was made is kept on the disk."""
        with self._lock:
            if self._status.working:
                self._pause = True
                self._status = replace(self._status, state="pausing", message="Stopping after this step.")

    def hypernetworks(self) -> list[Found]:
        """All hypernetworks that are there now, damaged ones with the reason."""
        return [found for folder in self.backend.hypernetwork_dirs() for found in list_hypernetworks(folder)]

    def offered(self) -> list[Found]:
        """The one that was made and is not used yet, if there is one."""
        status = self.status()
        return list_hypernetworks(status.folder) if status.offered and status.folder else []

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
                    self._built(host)
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
        return True

    def _built(self, host: Host) -> None:
        folder = self.backend.builds_dir() / f"{host.checkpoint_name or 'checkpoint'}-{host.checkpoint_hash}"
        self._change(folder=folder, offered=False)
        begun = (folder / "build.json").exists()
        if not begun and not self._wanted:
            raise UserError("No build was begun for this checkpoint yet: press Start.")
        file = build(folder, self._wanted, host, folder, Reporter(self._tell, self._should_pause))
        if file is None:
            return
        used = fitting(self.backend.hypernetwork_dirs(), host)
        if used is None:
            file = self._install(file)
        message = _USED.format(file.name) if used is None else _OFFERED.format(used.name)
        self._change(state="done", file=file, offered=used is not None, eta_seconds=None, message=message)

    def _should_pause(self) -> bool:
        return self._pause or self.backend.wanted()

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


def fitting(folders: Sequence[Path], host: Host) -> Path | None:
    """The hypernetwork that is used for this very checkpoint."""
    found = find_hypernetwork(folders, Architecture.of(host.linears()), host.checkpoint_hash)
    return found if found is not None and read_config(found).checkpoint_hash == host.checkpoint_hash else None


def _left_on_disk(builds: Path, used: Sequence[Path]) -> BuildStatus:
    """How the newest build was left when the program ended."""
    begun = max(builds.glob("*/build.json"), key=_changed, default=None)
    if begun is None:
        return BuildStatus()
    folder = begun.parent
    name = f"{folder.name}-hypernetwork.safetensors"
    if any((place / name).is_file() and _changed(place / name) > _changed(begun) for place in used):
        return BuildStatus()
    made = next(folder.glob("*-hypernetwork.safetensors"), None)
    sheet = folder / "training" / "sheet.png"
    known = BuildStatus(folder=folder, file=made, sheet=sheet.read_bytes() if sheet.is_file() else b"")
    if made is not None:
        return replace(known, state="done", offered=True, message=_WAITS.format(made.name))
    return replace(known, state="paused", message=f"The build for {folder.name} was begun: Resume goes on from there.")


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _free_memory() -> None:
    """What a build holds of the graphics card's memory is somebody else's now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
