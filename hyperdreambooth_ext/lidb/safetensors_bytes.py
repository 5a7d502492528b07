"""Safetensors as bytes, the same for the same content, and read with suspicion.

The library writes metadata in an order that changes from run to run; the format itself is eight bytes of length, a
JSON header and the data, so the few lines here make files reproducible. Reading is the library's work, once size and
header are no larger than they can be.
"""

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open  # type: ignore[attr-defined]  # missing in its older stubs
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


def metadata_of(path: Path, max_bytes: int) -> dict[str, str]:
    """The metadata of a safetensors file alone: only its header is read. Raises FileError as `from_file` does."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise FileError(f"{path.name} is {size / 1e6:.0f} MB, far more than such a file can be: it was not read.")
        with open(path, "rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
                raise _damaged(path, "its header is longer than it can be")
        # The library reads the header, and sees whether the file ends with its last tensor.
        with safe_open(str(path), framework="np") as opened:  # type: ignore[attr-defined]
            return opened.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    except FileNotFoundError:
        raise FileError(f"There is no file {path}: check its name and folder.") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _damaged(path: Path, why: str) -> FileError:
    return FileError(f"{path.name} is damaged or no safetensors file ({why}): make or download it again.")


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"{path} cannot be read ({error.strerror or error}): check its permissions.")
