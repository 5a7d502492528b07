"""Where a build keeps what it made: everything in one folder, each file whole or absent."""

from dataclasses import dataclass
from pathlib import Path

# Faces to a file of what was computed of them.
CHUNK = 64


@dataclass(frozen=True)
class Folder:
    """The layout of one build's folder."""

    path: Path

    @property
    def options(self) -> Path:
        return self.path / "build.json"

    @property
    def plan(self) -> Path:
        """What was decided on the way, such as the number of steps that fit the time."""
        return self.path / "plan.json"

    @property
    def faces(self) -> Path:
        return self.path / "faces"

    @property
    def prepared(self) -> Path:
        return self.path / "prepared"

    @property
    def targets(self) -> Path:
        return self.path / "targets"

    @property
    def basis(self) -> Path:
        return self.path / "basis.safetensors"

    @property
    def recognizer(self) -> Path:
        # Spelled as it was when the first builds were begun: they go on where they were.
        return self.path / "recogniser"

    @property
    def second_recognizer(self) -> Path:
        return self.path / "recogniser-2"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @property
    def best(self) -> Path:
        return self.training / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.training / "last.safetensors"

    def chunk(self, folder: Path, first: int) -> Path:
        """The file of the faces `first` to `first + CHUNK - 1`."""
        return folder / f"{first:08d}.safetensors"


def chunks(count: int) -> list[tuple[int, int]]:
    """(first, past the last) of each chunk of `count` faces."""
    return [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
