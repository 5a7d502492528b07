"""Where a build keeps what it made: everything in one folder, each file whole or absent.

The faces lie in tar shards of JPEG and JSON pairs, as webdataset streams them; written with the standard library, since
a build within the WebUI has no webdataset. Faces are numbered in the order of the shards, whatever their lengths, so a
build that was stopped in the middle of a shard numbers them as one that was not.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FileError
from ..files import write_atomically
from ..images.photo import photo_from_bytes
from ..images.sheet import jpeg

FACES_PER_SHARD = 32
JPEG_QUALITY = 95


class Folder:
    """The layout of one build's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = path / "build.json"
        # What was decided on the way, such as the number of steps that fit the time.
        self.plan = path / "plan.json"
        self.faces = path / "faces"
        self.prepared = path / "prepared"
        self.targets = path / "targets"
        # Spelled as when the first builds were begun: they go on where they were.
        self.recognizers = (path / "recogniser", path / "recogniser-2")
        self.training = path / "training"
        self.best = self.training / "best.safetensors"
        self.last = self.training / "last.safetensors"


@dataclass(frozen=True)
class Face:
    """An aligned crop, RGB uint8 [S, S, 3], and where it comes from: `source` is told in its JSON.

    `number` counts the candidates that it was chosen from.
    """

    number: int
    crop: np.ndarray
    identity: np.ndarray
    """float32 [128], a unit vector: near-duplicates are found by it."""
    source: dict


class FaceStore:
    """The shards of one folder. Several processes write shards of their own."""

    def __init__(self, folder: Path) -> None:
        """Raises FileError for a shard that is cut short."""
        self.folder = folder
        self._places: list[tuple[Path, int, int]] = []  # file, offset and size of each picture
        self._identities: list[np.ndarray] = []
        self._next: dict[tuple[int, int], int] = {}
        self._shards: dict[int, int] = {}
        for file in sorted(folder.glob("faces-*.tar")):
            self._read_index(file)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def identities(self) -> np.ndarray:
        """float32 [faces, 128]."""
        return np.stack(self._identities) if self._identities else np.zeros((0, 128), np.float32)

    def next_number(self, rank: int = 0, processes: int = 1) -> int:
        """The candidate that this process looks at next, where so many processes share the search."""
        return self._next.get((rank, processes), 0)

    def tried_by_others(self, processes: int) -> int:
        """How many candidates were looked at, at the most, while another number of processes shared the search."""
        return max((number * count for (_, count), number in self._next.items() if count != processes), default=0)

    def of_rank(self, rank: int) -> int:
        """How many faces a process has found."""
        return sum(f"faces-{rank:04d}-" in file.name for file, _, _ in self._places)

    def crop(self, index: int) -> np.ndarray:
        """Face `index`, RGB uint8 [S, S, 3]."""
        file, offset, size = self._places[index]
        with open(file, "rb") as shard:
            shard.seek(offset)
            return photo_from_bytes(shard.read(size), file.name)

    def append(self, faces: list[Face], rank: int = 0, processes: int = 1) -> None:
        """Write one more shard, that of one of so many processes. Raises FileError when the disk is full."""
        if not faces:
            return
        number = self._shards.get(rank, 0)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            for face in faces:
                facts = face.source | {"number": face.number, "processes": processes}
                facts["identity"] = [round(float(x), 5) for x in face.identity]
                _add(shard, f"{rank:04d}{face.number:010d}.jpg", jpeg(face.crop, JPEG_QUALITY))
                _add(shard, f"{rank:04d}{face.number:010d}.json", json.dumps(facts).encode())
        file = self.folder / f"faces-{rank:04d}-{number:06d}.tar"
        write_atomically(file, buffer.getvalue())
        self._read_index(file)

    def _read_index(self, file: Path) -> None:
        try:
            with tarfile.open(file, "r:") as shard:
                members = shard.getmembers()
                for member in members:
                    if member.name.endswith(".jpg"):
                        self._places.append((file, member.offset_data, member.size))
                    else:
                        self._note(file, json.loads(shard.extractfile(member).read()))  # type: ignore[union-attr]
            if not members or file.stat().st_size < members[-1].offset_data + members[-1].size:
                raise tarfile.ReadError("it ends too early")
        except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
            raise FileError(f"{file} is cut short or damaged ({error}): delete it and start again.") from error
        except OSError as error:
            raise FileError(f"{file} cannot be read ({error.strerror or error}): check its permissions.") from error

    def _note(self, file: Path, facts: dict) -> None:
        rank, number = (int(part) for part in file.stem.split("-")[1:])
        self._identities.append(np.array(facts["identity"], np.float32))
        key = rank, int(facts.get("processes", 1))
        self._next[key] = max(self._next.get(key, 0), int(facts["number"]) + 1)
        self._shards[rank] = max(self._shards.get(rank, 0), number + 1)


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))
