"""The LiDBs in a folder: which there are, and one of them as an ordinary LoRA."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..lidb import file
from ..lidb.lora import export_lora


@dataclass(frozen=True)
class Entry:
    """A LiDB on disk."""

    name: str
    path: Path
    file_bytes: int
    info: file.Info


def entries(folder: Path) -> list[Entry]:
    """All LiDBs in `folder` and its subfolders, by name; other files and damaged ones are passed over."""
    found = []
    for path in sorted(Path(folder).rglob("*.safetensors")):
        try:
            size = path.stat().st_size
            # LoRAs and checkpoints may lie in the same folder; the largest LiDB is far smaller than most of them.
            if size <= file.MAX_FILE_BYTES:
                found.append(Entry(path.stem, path, size, file.read_info(path)))
        except (FileError, OSError):
            # Somebody else's file, or one that is being written: a listing is no place to complain about it.
            continue
    return found


def export(folder: Path, name: str, overwrite: bool = False) -> Path:
    """Write NAME_lora.safetensors beside the LiDB and return its path. Raises FileError when it cannot be."""
    source = file.path_of(folder, name)
    if not source.is_file():
        raise FileError(f'There is no LiDB named "{source.stem}": check the name.')
    target = source.with_name(f"{source.stem}_lora.safetensors")
    if os.path.lexists(target) and not overwrite:
        raise FileError(f"{target.name} exists already: move it away or allow replacing it.")
    lidb, info = file.load(source)
    export_lora(target, lidb, info, overwrite)
    return target
