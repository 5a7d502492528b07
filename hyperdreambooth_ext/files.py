"""Writing files so that they are whole or absent, and naming them so that every system and prompt takes the name."""

import contextlib
import errno
import os
import re
import tempfile
from pathlib import Path

from .errors import FileError, UserError

_FORBIDDEN = re.compile(r'[<>:"/\\|?*,\x00-\x1f]')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def checked_name(name: str) -> str:
    """`name` without surrounding blanks, if it can stand in a prompt tag and as a file name everywhere.

    Raises UserError otherwise.
    """
    name = name.strip()
    if not name:
        raise UserError("The name is empty: give the LiDB one, such as anna.")
    if _FORBIDDEN.search(name):
        raise UserError(
            f"The name {name!r} holds a character that a tag or a file name cannot: "
            'leave out < > : " / \\ | ? * and commas.'
        )
    if name.startswith(".") or name.endswith(".") or name.split(".")[0].lower() in _DEVICES or len(name.encode()) > 100:
        raise UserError(f"The name {name[:40]!r} cannot be a file name on every system: use letters, digits, - and _.")
    return name


def write_atomically(path: Path, content: bytes, verify=None) -> None:
    """Write `content` to `path` so that at any moment the file is the old one or the new one, whole.

    `verify(temporary path)` may look at what was written and raise before it takes its place.
    Raises FileError when the disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise FileError(f"{path} was not stored as it was written: check the disk, then try again.")
        if verify is not None:
            verify(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise FileError(_why_not_written(path, error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _why_not_written(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"The disk is full: free some space, then save {path.name} again."
    return f"{path} cannot be written ({error.strerror or error}): choose another folder or allow writing there."
