"""The hypernetwork file: one safetensors file, float16, that carries its configuration."""

import hashlib
from pathlib import Path

from ..errors import ArchitectureError, FileError
from ..files import write_atomically
from ..lidb.layers import Architecture
from ..lidb.safetensors_bytes import from_file, metadata_of, to_bytes
from .claims import NothingRandom, check_claims
from .config import HypernetworkConfig
from .hypernetwork import Hypernetwork

MAX_FILE_BYTES = 4_000_000_000
ENCODER = "encoder."


def save_hypernetwork(path: Path, network: Hypernetwork) -> None:
    """Write the file atomically; the encoder's weights go in when the configuration says that they are bundled."""
    state = network.state_dict()
    if not network.config.encoder_bundled:
        state = {key: value for key, value in state.items() if not key.startswith(ENCODER)}
    tensors = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    write_atomically(Path(path), to_bytes(tensors, {"hypernetwork": network.config.to_json()}))


def load_hypernetwork(path: Path) -> Hypernetwork:
    """Read a hypernetwork, ready to predict. Raises FileError when it is missing, damaged, or none."""
    path = Path(path)
    tensors, metadata = from_file(path, MAX_FILE_BYTES)
    if "hypernetwork" not in metadata:
        raise FileError(f"{path.name} is no hypernetwork file: use one that this project trained.")
    config = HypernetworkConfig.from_json(metadata["hypernetwork"])
    try:
        check_claims(config, tensors)
    except ValueError as error:
        raise FileError(f"{path.name} does not fit its own configuration ({error}): download or train it again.") from (
            error
        )
    with NothingRandom():
        network = Hypernetwork(config, pretrained_encoder=not config.encoder_bundled)
    try:
        # Copied number by number into float32: never a second whole copy.
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise FileError(f"{path.name} does not fit its own configuration: download or train it again.") from error
    return network.eval().requires_grad_(False)


def find_hypernetwork(folder: Path, architecture: Architecture, checkpoint_hash: str) -> Path | None:
    """The file in `folder` that fits this architecture, one made for this very checkpoint first; None without any."""
    fitting = []
    for path in sorted(Path(folder).glob("*hypernetwork*.safetensors")):
        config = read_config(path)
        if config.architecture.fingerprint == architecture.fingerprint:
            fitting.append((config.checkpoint_hash != checkpoint_hash, path))
    return min(fitting)[1] if fitting else None


def read_config(path: Path) -> HypernetworkConfig:
    """A hypernetwork file's configuration alone."""
    metadata = metadata_of(Path(path), MAX_FILE_BYTES)
    if "hypernetwork" not in metadata:
        raise FileError(f"{Path(path).name} is no hypernetwork file: move it out of the folder.")
    return HypernetworkConfig.from_json(metadata["hypernetwork"])


def check_fits(network: Hypernetwork, architecture: Architecture) -> None:
    """Raises ArchitectureError when the hypernetwork was trained for layers of other names or shapes."""
    if network.config.architecture.fingerprint != architecture.fingerprint:
        raise ArchitectureError(
            f"This hypernetwork was trained for another architecture ({network.config.checkpoint or 'unknown'}): "
            "use --start gradient, or a hypernetwork made for this checkpoint."
        )


def file_hash(path: Path) -> str:
    """The first ten digits of the file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:10]
