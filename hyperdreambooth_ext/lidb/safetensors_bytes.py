"""Safetensors as bytes, the same for the same content, and read with suspicion.

The library writes metadata in an order that changes from run to run; the format itself is eight bytes of length, a
JSON header and the data, so the few lines here make files reproducible. Reading checks the header before any tensor
is made, then leaves the tensors to the library.
"""

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError  # type: ignore[attr-defined]  # missing in its older stubs
from safetensors.torch import load

from ..errors import FileError

# A LiDB's header has about 40 KB, a large hypernetwork's 200 KB; parsed, a header takes many times its size.
MAX_HEADER_BYTES = 2_000_000
_DTYPES = {torch.int8: "I8", torch.float16: "F16", torch.float32: "F32"}


def to_bytes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """One safetensors file: int8, float16 and float32 tensors, sorted by name, and metadata, sorted by key."""
    header: dict = {"__metadata__": dict(sorted(metadata.items()))}
    data = bytearray()
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().cpu().contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def from_file(path: Path, max_bytes: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file from anywhere.

    Raises FileError when it is missing, larger than `max_bytes`, damaged, or its header claims what it does not hold.
    """
    metadata = metadata_of(path, max_bytes)
    try:
        return load(path.read_bytes()), metadata
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def metadata_of(path: Path, max_bytes: int, whole: bool = False) -> dict[str, str]:
    """The metadata of a safetensors file alone: only its header is read. Raises FileError as `from_file` does.

    With `whole` also when the file ends before or after its last tensor.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise FileError(f"{path.name} is {size / 1e6:.0f} MB, far more than such a file can be: it was not read.")
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise _damaged(path, "its header is longer than it can be")
            content = file.read(length)
    except FileNotFoundError:
        raise FileError(f"There is no file {path}: check its name and folder.") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    return _parsed_metadata(path, content, size - 8 - length if whole else None)


def _parsed_metadata(path: Path, content: bytes, data_bytes: int | None) -> dict[str, str]:
    try:
        header = json.loads(content, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header cannot be read: {error}") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata is no table of texts")
    if data_bytes is not None and _last_byte(header) != data_bytes:
        raise _damaged(path, "it is not as long as its header says")
    return metadata


def _last_byte(header: dict) -> object:
    """Where the last tensor ends; None when the header does not say."""
    try:
        return max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (KeyError, TypeError, IndexError):
        return None


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _damaged(path: Path, why: str) -> FileError:
    return FileError(f"{path.name} is damaged or no safetensors file ({why}): make or download it again.")


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"{path} cannot be read ({error.strerror or error}): check its permissions.")
