"""The LiDBs in a folder: which there are, one of them as an ordinary LoRA, another name, gone and back again."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FileError
from ..files import checked_name
from ..lidb import file
from ..lidb.lora import export_lora
from ..shipped import MODELS

# What the WebUI keeps beside a file: notes, descriptions, pictures.
_BESIDE = (".json", ".txt", ".png", ".jpg", ".jpeg", ".webp")
_DELETED = ".deleted"


@dataclass(frozen=True)
class Entry:
    """A LiDB on disk; `modified` in seconds since 1970."""

    name: str
    path: Path
    file_bytes: int
    modified: float
    info: file.Info


def entries(folder: Path) -> list[Entry]:
    """All LiDBs in `folder` and its subfolders, by name; other files and damaged ones are passed over."""
    found = []
    for path in sorted(Path(folder).rglob("*.safetensors")):
        try:
            stat = path.stat()
            # LoRAs and checkpoints may lie in the same folder; the largest LiDB is far smaller than most of them.
            if stat.st_size <= file.MAX_FILE_BYTES:
                found.append(Entry(path.stem, path, stat.st_size, stat.st_mtime, file.read_info(path)))
        except (FileError, OSError):
            # Somebody else's file, or one that is being written: a listing is no place to complain about it.
            continue
    return found


def find(folder: Path, name: str) -> Path:
    """The LiDB of that name, in `folder` or below it. Raises FileError when there is none."""
    name = checked_name(name)
    for path in [file.path_of(folder, name), *sorted(Path(folder).rglob(f"{glob.escape(name)}.safetensors"))]:
        if path.is_file():
            return path
    raise FileError(f'There is no LiDB named "{name}": check the name.')


def export(folder: Path, name: str, overwrite: bool = False, hypernetworks: Sequence[Path] = (MODELS,)) -> Path:
    """Write NAME_lora.safetensors beside the LiDB and return its path. Raises FileError when it cannot be.

    A basis that the file only names is looked for among the `hypernetworks` in these folders.
    """
    source = find(folder, name)
    target = source.with_name(f"{source.stem}_lora.safetensors")
    if os.path.lexists(target) and not overwrite:
        raise FileError(f"{target.name} exists already: move it away or allow replacing it.", "overwrite")
    lidb, info = file.load(source, hypernetworks)
    export_lora(target, lidb, info, overwrite)
    return target


def rename(folder: Path, name: str, to: str) -> Path:
    """Give a LiDB another name, within the file too, and take along what lies beside it. Raises FileError."""
    source, to = find(folder, name), checked_name(to)
    target = file.path_of(source.parent, to)
    if os.path.lexists(target):
        raise FileError(f'A LiDB named "{to}" exists already: take another name.')
    lidb, info = file.load(source, None)
    file.save(target, lidb, replace(info, name=to), overwrite=False)
    source.unlink()
    for path in source.parent.iterdir():
        kept = path.name.removeprefix(source.stem)
        if kept.removeprefix(".preview") in _BESIDE and path.name != kept and not target.with_name(to + kept).exists():
            path.rename(target.with_name(to + kept))
    return target


def delete(folder: Path, name: str) -> None:
    """Take a LiDB away; `undelete` brings it back until another one is deleted or the program starts anew."""
    source = find(folder, name)
    forget_deleted(folder)
    os.replace(source, source.with_name(f".{source.name}{_DELETED}"))


def undelete(folder: Path) -> Path:
    """Bring back what was deleted last. Raises FileError when there is nothing or its name is taken by now."""
    for path in _deleted(folder):
        target = path.with_name(path.name.removeprefix(".").removesuffix(_DELETED))
        if os.path.lexists(target):
            raise FileError(f'A LiDB named "{target.stem}" exists by now: rename it first.')
        os.replace(path, target)
        return target
    raise FileError("There is nothing to bring back: it is gone for good.")


def forget_deleted(folder: Path) -> None:
    """What was deleted is gone for good."""
    for path in _deleted(folder):
        path.unlink(missing_ok=True)


def _deleted(folder: Path) -> list[Path]:
    return sorted(Path(folder).rglob(f".*.safetensors{_DELETED}"))
