"""The hypernetwork file: one safetensors file, float16, that carries its configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ArchitectureError, FileError
from ..files import file_sha256, write_atomically
from ..hosts.protocol import Host
from ..lidb.layers import Architecture
from ..lidb.safetensors_bytes import from_file, metadata_of, to_bytes
from ..lidb.stored_basis import StoredBasis, checked_basis, of_basis
from .claims import Unfilled, check_claims
from .config import HypernetworkConfig
from .hypernetwork import Hypernetwork

MAX_FILE_BYTES = 4_000_000_000
ENCODER = "encoder."
# What version 0.1 called some tensors.
_FORMER = (("decoder.identity_centre", "decoder.identity_center"), ("readers.readers.", "identity_net.nets."))
# Checkpoints may lie in the same folder; only headers are read to tell them apart.
_ANY_SIZE = 1 << 40


def save_hypernetwork(path: Path, network: Hypernetwork) -> None:
    """Write the file atomically; the encoder's weights go in when the configuration says that they are bundled."""
    state = network.state_dict()
    if not network.config.encoder_bundled:
        state = {key: value for key, value in state.items() if not key.startswith(ENCODER)}
    tensors = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    write_atomically(Path(path), to_bytes(tensors, {"hypernetwork": network.config.to_json()}))


def load_hypernetwork(path: Path) -> Hypernetwork:
    """Read a hypernetwork, ready to predict. Raises FileError when it is missing, damaged, or none."""
    tensors, metadata = from_file(path, MAX_FILE_BYTES)
    config = _config(path, metadata)
    for former, name in _FORMER:
        tensors = {key.replace(former, name): tensor for key, tensor in tensors.items()}
    if isinstance(config.basis, StoredBasis):
        stored = of_basis(tensors)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in stored}
        try:
            config = replace(config, basis=checked_basis(config.basis, stored, config.architecture.layers))
        except ValueError as error:
            raise FileError(f"{path.name} holds a damaged basis ({error}): download or train it again.") from error
    try:
        check_claims(config, tensors)
        # The program around us may count on its random state, also while a job's thread loads a network.
        with Unfilled():
            network = Hypernetwork(config, pretrained_encoder=not config.encoder_bundled)
        # Copied number by number into float32: never a second whole copy.
        network.load_state_dict(tensors, strict=False)
    except (ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise FileError(f"{path.name} does not fit its own configuration ({why}): download it again.") from error
    network.file_hash = file_sha256(path)[:10]
    return network.eval().requires_grad_(False)


def fitting_hypernetwork(host: Host, folders: Path | Sequence[Path], name: str = "") -> Hypernetwork | None:
    """The hypernetwork for the host's checkpoint, as `find_hypernetwork` chooses it; None when none fits."""
    path = find_hypernetwork(folders, Architecture.of(host.linears()), host.checkpoint_hash, name)
    return None if path is None else load_hypernetwork(path)


def find_hypernetwork(
    folders: Path | Sequence[Path], architecture: Architecture, checkpoint_hash: str, name: str = ""
) -> Path | None:  # fmt: skip
    """The file in `folders` that fits this architecture, one made for this very checkpoint first, and of several the
    newest; None without any. Damaged files are passed over: `list_hypernetworks` says what is wrong with them.

    `name` asks for the file of that name, whatever it fits. Raises FileError when it is not there or damaged.
    """
    folders = [folders] if isinstance(folders, Path) else folders
    there = [found for folder in folders for found in list_hypernetworks(folder)]
    if name:
        gone = f"The hypernetwork {name} is not there any more: choose another one, or Automatic."
        named = next((found for found in there if found.path.name == name), Found(Path(name), None, gone))
        if named.problem:
            raise FileError(named.problem)
        return named.path
    fitting = [
        (found.config.checkpoint_hash != checkpoint_hash, -found.path.stat().st_mtime, found.path)
        for found in there
        if found.config is not None and found.config.architecture.fingerprint == architecture.fingerprint
    ]
    return min(fitting)[2] if fitting else None


@dataclass(frozen=True)
class Found:
    """A file in a hypernetworks' folder: its configuration, or the sentence that says why it cannot be used."""

    path: Path
    config: HypernetworkConfig | None
    problem: str = ""


def list_hypernetworks(folder: Path) -> list[Found]:
    """All hypernetwork files of `folder`, by name; other files are passed over, damaged ones say why."""
    found = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        named = "hypernetwork" in path.name
        try:
            if named or "hypernetwork" in metadata_of(path, _ANY_SIZE):
                found.append(Found(path, read_config(path)))
        except FileError as error:
            if named:
                found.append(Found(path, None, str(error)))
    return found


def read_config(path: Path) -> HypernetworkConfig:
    """A hypernetwork file's configuration alone. Raises FileError."""
    return _config(path, metadata_of(path, MAX_FILE_BYTES))


def _config(path: Path, metadata: dict[str, str]) -> HypernetworkConfig:
    if "hypernetwork" not in metadata:
        raise FileError(f"{path.name} is no hypernetwork file: choose another, or move it out of the folder.")
    return HypernetworkConfig.from_json(metadata["hypernetwork"])


def check_fits(network: Hypernetwork, architecture: Architecture) -> None:
    """Raises ArchitectureError when the hypernetwork was trained for layers of other names or shapes."""
    if network.config.architecture.fingerprint != architecture.fingerprint:
        other = f"This hypernetwork was trained for another architecture ({network.config.checkpoint or 'unknown'})"
        raise ArchitectureError(f"{other}: choose another, or the gradient start.", "start", "hypernetwork")
