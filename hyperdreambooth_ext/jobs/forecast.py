"""What a job will be like, told before it begins: checkpoint, size, start, and the time and memory of the last one."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.file import find_hypernetwork
from ..lidb.layers import Architecture
from ..personalize.options import PersonalizeOptions
from ..personalize.starts import Start


@dataclass(frozen=True)
class Forecast:
    """`seconds` and `megabytes` are None where no job of this checkpoint, size and device was measured yet."""

    checkpoint: str
    size: int
    start: Start
    seconds: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Measured:
    """Of one job: seconds for an iteration, for a sampling step and for everything else, and the peak of memory."""

    iteration: float
    sampling: float
    other: float
    megabytes: float | None


class Timings:
    """The newest measurement for each checkpoint, size and device, in a file of the user's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, host: Host, size: int, measured: Measured) -> None:
        """Remember a job. Raises FileError when the disk is full."""
        known = self._read() | {_key(host, size): vars(measured)}
        write_atomically(self.path, (json.dumps(known, indent=2) + "\n").encode())

    def of(self, host: Host, size: int) -> Measured | None:
        """The last job that was like this one."""
        try:
            return Measured(**self._read()[_key(host, size)])
        except (KeyError, TypeError):
            return None

    def _read(self) -> dict:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Not there yet, or not ours any more: a forecast is not worth an error.
            return {}
        return known if isinstance(known, dict) else {}


def forecast(host: Host, options: PersonalizeOptions, folders: Sequence[Path], timings: Timings) -> Forecast:
    """What a job with these options will be like. Raises UserError when its hypernetwork is gone."""
    size = options.size or host.default_size
    start: Start = options.start or "gradient"
    if options.start is None:
        architecture = Architecture.of(host.linears())
        found = find_hypernetwork(folders, architecture, host.checkpoint_hash, options.hypernetwork)
        start = "gradient" if found is None else "hypernetwork"
    known = timings.of(host, size)
    if known is None:
        return Forecast(host.checkpoint_name, size, start)
    iterations, sampling = options.finetune().steps, 2 * options.pictures * options.picture_steps
    seconds = known.other + iterations * known.iteration + sampling * known.sampling
    return Forecast(host.checkpoint_name, size, start, seconds, known.megabytes)


def _key(host: Host, size: int) -> str:
    return f"{host.checkpoint_hash or host.checkpoint_name} {size} {host.device.type}"


def peak_megabytes(device: torch.device = torch.device("cpu")) -> float | None:
    """The most memory that was taken so far, in MB: of the graphics card, else of the process; None on Windows."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
