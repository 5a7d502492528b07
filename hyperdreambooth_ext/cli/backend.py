"""What a job needs of the program around it, for our own window: one diffusers model and a folder."""

import contextlib
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.file import fitting_hypernetwork
from ..hypernet.hypernetwork import Hypernetwork
from ..sampling.sampler import Sampling
from ..shipped import MODELS


class StandaloneBackend:
    """See `jobs.backend.Backend`. Model and hypernetwork are loaded when they are first needed and then kept."""

    name = "standalone"

    def __init__(self, folder: Path, checkpoint: Path | None = None, device: str = "auto") -> None:
        self.folder = folder
        self._arguments = Namespace(checkpoint=checkpoint, device=device)
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._host: Host | None = None
        self._waiting = 0
        self._borrower: int | None = None
        self._fitting: tuple[Hypernetwork | None, tuple[str, list]] | None = None

    @contextmanager
    def model(self) -> Iterator[Host]:
        """The model, for one thread at a time. Raises UserError when it cannot be loaded."""
        with self._entered():
            if self._host is None:
                # diffusers takes a second to import: the window opens without it.
                from .commands import load_host

                self._host = load_host(self._arguments)
            yield self._host

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Hold the lock, and be counted while waiting for it."""
        if not self._lock.acquire(blocking=False):
            with self._counting:
                self._waiting += 1
            self._lock.acquire()
            with self._counting:
                self._waiting -= 1
        self._borrower = threading.get_ident()
        try:
            yield
        finally:
            self._borrower = None
            self._lock.release()

    def warm(self) -> None:
        """Load the model before it is needed; an error shows again, and to the user, when it is."""
        with contextlib.suppress(UserError), self.model():
            pass

    def unfit(self) -> str:
        return ""

    def hypernetwork(self, host: Host, name: str = "") -> Hypernetwork | None:
        # Loading takes a second; a file that is new or gone is noticed.
        there = [
            (file, file.stat().st_mtime_ns)
            for folder in self.hypernetwork_dirs()
            for file in folder.glob("*.safetensors")
        ]
        if self._fitting is None or self._fitting[1] != (name, there):
            self._fitting = (fitting_hypernetwork(host, self.hypernetwork_dirs(), name), (name, there))
        return self._fitting[0]

    def hypernetwork_dirs(self) -> list[Path]:
        return [MODELS]

    def builds_dir(self) -> Path:
        return self.folder / "builds"

    def wanted(self) -> bool:
        return self._waiting > 0 or self._borrower not in (None, threading.get_ident())

    def peek(self) -> Host | None:
        return self._host

    def can_try(self) -> bool:
        return self._arguments.checkpoint is None

    def load_bundled(self) -> None:
        """It is the one that is loaded, or that will be."""

    def lidb_dir(self) -> Path:
        return self.folder

    def saved(self, path: Path) -> None:
        """Files are read anew for every picture: nothing is cached."""

    def report(self, stage: str, step: int, steps: int, preview: object | None) -> None:
        """The tab shows the progress; there is no other display."""

    def generate(self, prompt: str, seed: int) -> np.ndarray:
        """One picture, RGB uint8, with the LiDBs that the prompt's tags name. Raises UserError."""
        with self.model() as host:
            from .generate import generate

            return generate(host, prompt, self.folder, Sampling(seed=seed))
