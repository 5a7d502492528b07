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
    local = sorted(glob.glob(pattern, recursive=True))
    if not local:
        yield from _streamed(pattern, rank, count)
    for shard in local[rank::count]:
        yield from _tar(shard)


def _tar(shard: str) -> Iterator[tuple]:
    """A shard on this machine needs no library."""
    try:
        with tarfile.open(shard, "r|*") as tar:
            for member in tar:
                if member.isfile() and Path(member.name).suffix.lower() in PICTURES:
                    content = tar.extractfile(member).read()  # type: ignore[union-attr]
                    if len(content) < member.size:
                        raise tarfile.ReadError("it ends within a picture")
                    yield member.name, lambda content=content, name=member.name: photo_from_bytes(content, name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FileError(
            f"The shard {shard} is cut short or damaged ({error}): copy it again or take it away."
        ) from error


def _streamed(pattern: str, rank: int, count: int) -> Iterator[tuple]:
    """Shards elsewhere (http, s3 through a pipe, {000..099}) go through webdataset."""
    if "://" not in pattern and "{" not in pattern and not pattern.startswith("pipe:"):
        raise FileError(f"There is no shard {pattern}: check the pattern.", "shards")
    try:
        import webdataset
    except ImportError as error:
        raise UserError("Streaming shards needs the package webdataset: pip install webdataset.") from error
    urls = list(webdataset.SimpleShardList(pattern).urls)
    if not urls:
        raise FileError(f"{pattern} names no shard: check the pattern.", "shards")
    try:
        for sample in webdataset.WebDataset(urls[rank::count], shardshuffle=False, nodesplitter=None):
            for name, content in sample.items():
                if f".{name.rsplit('.', 1)[-1].lower()}" in PICTURES and isinstance(content, bytes):
                    yield (
                        sample["__key__"],
                        lambda content=content, key=sample["__key__"]: photo_from_bytes(content, key),
                    )
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise FileError(f"The shards {pattern} cannot be read to their end ({error}): copy them again.") from error
