"""Temporary files beside the files that they become, and what is left of them when a process was killed.

A writer holds a lock on its temporary file, which the system takes away with the process: so what nobody holds is a
leftover, however young, and what a living process writes is never touched.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks; there nobody can delete a file that is open
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".hdb.tmp"
# Where no lock tells, a file of this age is a leftover: writing takes a second.
_OLD_SECONDS = 600


@contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the folder of `path`, open for writing and locked, and its path; gone afterwards unless renamed.

    Its permissions are those of any new file. Raises OSError where it cannot be made.
    """
    file, name = _new_file(path)
    while not _is_ours(file):
        file.close()
        file, name = _new_file(path)
    try:
        yield file, name
    finally:
        file.close()
        with contextlib.suppress(OSError):
            name.unlink()


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files in `folder` that no living process is writing; returns how many there were."""
    return sum(_removed(name) for name in folder.glob(f".*{SUFFIX}"))


def _new_file(path: Path) -> tuple[BinaryIO, Path]:
    name = path.parent / f".{path.name[:60]}.{secrets.token_hex(6)}{SUFFIX}"
    return open(name, "x+b"), name


def _lock(file: BinaryIO) -> bool | None:
    """Whether nobody else held the lock, which is ours now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None  # a file system without them
    return True


def _is_ours(file: BinaryIO) -> bool:
    """Take the lock; False if the file was taken for a leftover in the moment before."""
    free = _lock(file)
    return free is None or (free and os.fstat(file.fileno()).st_nlink > 0)


def _removed(name: Path) -> bool:
    """Delete the file unless somebody is writing it."""
    try:
        with open(name, "r+b") as file:
            free = _lock(file)
            if free is None:
                free = time.time() - os.fstat(file.fileno()).st_mtime > _OLD_SECONDS
            if free and os.name != "nt":
                name.unlink()
        if free and os.name == "nt":  # where no open file can be deleted
            name.unlink()
    except OSError:
        return False
    return free
