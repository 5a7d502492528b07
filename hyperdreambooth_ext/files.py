"""Writing files so that they are whole or absent, and naming them so that every system and prompt takes the name."""

import contextlib
import errno
import hashlib
import os
import re
import unicodedata
from pathlib import Path

from .errors import FileError, UserError
from .temporary import remove_leftovers, temporary_beside
from .texts import is_plain

_FORBIDDEN = re.compile(r'[<>:"/\\|?*,\x00-\x1f\x7f]')
# Windows takes these for devices in every folder, with any ending, and digits in superscript count too.
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{i}" for port in ("com", "lpt") for i in "0123456789¹²³"
}
MAX_NAME_BYTES = 100


def checked_name(name: str) -> str:
    """`name` without surrounding blanks and in Unicode's composed form (NFC), as macOS and others would find it, if it
    can stand in a prompt tag and as a file name everywhere.

    Raises UserError otherwise.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name:
        raise UserError("There is no name yet: give the person one, such as anna.")
    if forbidden := _FORBIDDEN.search(name):
        raise UserError(f"The name {name[:40]!r} holds a character that a tag cannot: leave out {forbidden[0]!r}.")
    device = name.split(".")[0].strip().lower() in _DEVICES
    # First whether it is plain: halves of characters have no bytes.
    if not is_plain(name) or name[0] == "." or name[-1] == "." or device:
        raise UserError(f"The name {name[:40]!r} cannot be a file name on every system: use letters, digits, - and _.")
    if len(name.encode()) > MAX_NAME_BYTES:
        fitting = len(name.encode()[:MAX_NAME_BYTES].decode(errors="ignore"))
        raise UserError(f"The name is too long: at most {fitting} characters of it fit.")
    return name


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes, verify=None, overwrite: bool = True) -> None:
    """Write `content` to `path` so that at any moment the file is the old one or the new one, whole.

    `verify(temporary path)` may look at what was written and raise before it takes its place. Without `overwrite` a
    file that is there is left alone, also one that came to be a moment ago.
    Raises FileError when it is there, when the disk is full or when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with temporary_beside(path) as (file, temporary):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if temporary.read_bytes() != content:
                raise FileError(f"{path} was not stored as it was written: check the disk, then try again.")
            if verify is not None:
                verify(temporary)
            if os.name == "nt":
                file.close()  # an open file cannot be renamed there
            _take_place(temporary, path, overwrite)
        _sync_folder(path.parent)
    except OSError as error:
        raise FileError(_why_not_written(path, error)) from error


def check_free(path: Path, overwrite: bool) -> None:
    """Raises FileError where there is a file already and it may not be replaced: before the work, not after it."""
    if os.path.lexists(path) and not overwrite:
        raise FileError(f"{path.name} exists already: take another name, or allow replacing it.", "overwrite")


def _take_place(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        if os.name == "nt":
            os.rename(temporary, path)
        else:
            os.link(temporary, path)
    except OSError:
        # There is one, or no links on this file system: look, and then hope that nobody was faster.
        check_free(path, overwrite)
        os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    """The name too shall outlive a loss of power; Windows keeps it by itself."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _why_not_written(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"The disk is full: free some space, then save {path.name} again."
    return f"{path} cannot be written ({error.strerror or error}): choose another folder or allow writing there."
