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


def fitting_hypernetwork(host: Host, folder: Path | Sequence[Path] = MODELS) -> tuple[Hypernetwork | None, str]:
    """The hypernetwork for the host's architecture and its file's hash; (None, "") when none fits."""
    path = find_hypernetwork(folder, Architecture.of(host.linears()), host.checkpoint_hash)
    return (None, "") if path is None else (load_hypernetwork(path), file_hash(path))
