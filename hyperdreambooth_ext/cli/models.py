"""Where the bundled models are, and which hypernetwork fits a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from ..hosts.protocol import Host
from ..hypernet.file import file_hash, find_hypernetwork, load_hypernetwork
from ..hypernet.hypernetwork import Hypernetwork
from ..lidb.layers import Architecture
from ..shipped import MODELS

CHECKPOINT = MODELS / "faces128.safetensors"
SAMPLE_PHOTO = MODELS / "sample_photo.jpg"


def fitting_hypernetwork(
    host: Host, folder: Path | Sequence[Path] = MODELS, name: str = ""
) -> tuple[Hypernetwork | None, str]:  # fmt: skip
    """The hypernetwork for the host's architecture and its file's hash; (None, "") when none fits.

    `name` asks for the file of that name. Raises FileError when it cannot be had.
    """
    path = find_hypernetwork(folder, Architecture.of(host.linears()), host.checkpoint_hash, name)
    return (None, "") if path is None else (load_hypernetwork(path), file_hash(path))
