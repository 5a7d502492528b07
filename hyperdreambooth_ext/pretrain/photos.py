"""Pictures from elsewhere: a folder of photos, or webdataset shards."""

import contextlib
import glob
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FileError, PhotoError, UserError
from ..images.photo import load_photo, photo_from_bytes
from .options import BuildOptions

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_BATCH = 16


@dataclass(frozen=True)
class Candidate:
    """A picture, RGB uint8 [H, W, 3], that may hold one good face; `number` is its place among all candidates."""

    number: int
    picture: np.ndarray
    source: dict


def photo_candidates(options: BuildOptions, following: int, rank: int, count: int) -> Iterator[list[Candidate]]:
    """The pictures of `options.photos` or `options.shards` from number `following` on, in batches.

    Of `count` processes each sees every `count`-th picture or shard. What is no picture is passed over.
    Raises UserError for a folder without any picture, FileError for a shard that is cut short: after the pictures
    before its end.
    """
    pictures = _photos(options.photos, rank, count) if options.photos else _sharded(options.shards, rank, count)
    batch: list[Candidate] = []
    try:
        for number, (name, read) in enumerate(pictures):
            if number < following:
                continue
            with contextlib.suppress(PhotoError):
                batch.append(Candidate(number, read(), {"file": name}))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except FileError:
        # What stands before the damage counts.
        yield batch
        raise
    yield batch


def _photos(folder: str, rank: int, count: int) -> Iterator[tuple]:
    path = Path(folder)
    if not path.is_dir():
        raise FileError(f"There is no folder {folder}: check the folder of photos.", "photos")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise UserError(f"{folder} holds no photo: put JPEG, PNG or WebP files there, one face in each.")
    for file in files[rank::count]:
        yield file.name, lambda file=file: load_photo(file)


def _sharded(pattern: str, rank: int, count: int) -> Iterator[tuple]:
    """Files of this machine by a glob, or what webdataset makes of the pattern: {000..099}, http, s3 through a pipe."""
    try:
        import webdataset
    except ImportError as error:
        raise UserError("Shards need the package webdataset: pip install webdataset.", "shards") from error
    elsewhere = "://" in pattern or "{" in pattern or pattern.startswith("pipe:")
    local = [f"file:{path}" for path in sorted(glob.glob(pattern, recursive=True))]
    shards = webdataset.SimpleShardList(pattern).urls if elsewhere and not local else local
    if not shards:
        raise FileError(f"There is no shard {pattern}: check the pattern.", "shards")
    try:
        for sample in webdataset.WebDataset(shards[rank::count], shardshuffle=False, nodesplitter=None):
            key = sample["__key__"]
            for name, content in sample.items():
                if f".{name.rsplit('.', 1)[-1].lower()}" in PICTURES and isinstance(content, bytes):
                    yield key, lambda content=content, key=key: photo_from_bytes(content, key)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise FileError(f"A shard of {pattern} is cut short or damaged ({error}): copy it again.") from error
