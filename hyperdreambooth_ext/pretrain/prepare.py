"""What training needs of every face, computed once: the encoder's features, the latents, and who it is."""

import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open  # type: ignore[attr-defined]

from ..errors import FileError
from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.embedder import Eyes, as_images
from ..lidb.safetensors_bytes import to_bytes
from .folder import CHUNK, Folder, chunks
from .processes import Processes
from .progress import BuildProgress, Reporter
from .store import FaceStore

_ENCODE = 8
# So many faces are enough to know what all have in common.
_COMMON = 1024


def prepare(
    folder: Folder, store: FaceStore, host: Host, eyes: Eyes, reporter: Reporter, processes: Processes
) -> "Prepared":
    """Compute what is missing, chunk by chunk, shared out to all processes. Raises FileError, Paused."""
    todo = chunks(len(store))
    for number, (first, end) in enumerate(todo):
        if number % processes.count != processes.rank:
            continue
        file = folder.chunk(folder.prepared, first)
        if rows_in(file) != end - first:
            reporter.check()
            crops = [store.crop(index) for index in range(first, end)]
            write_atomically(file, to_bytes(_computed(crops, host, eyes), {"rows": str(end - first)}))
        reporter.tell(BuildProgress("prepare", end, len(store)))
    processes.wait()
    return Prepared(folder, len(store))


def _computed(crops: list[np.ndarray], host: Host, eyes: Eyes) -> dict[str, torch.Tensor]:
    """features float16 [n, 2, tokens, channels], of the upright crop and of a mirrored, slightly changed one; latents
    float16 [n, 2, 4, h, w], upright and mirrored; identities float32 [n, 128]."""
    parts: dict[str, list[torch.Tensor]] = {"features": [], "latents": [], "identities": []}
    for start in range(0, len(crops), _ENCODE):
        images = as_images(crops[start : start + _ENCODE])
        views = torch.stack([images, changed(images.flip(-1))], dim=1)
        features = eyes.features(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        latents = host.encode_images(torch.stack([images, images.flip(-1)], dim=1).flatten(0, 1))
        parts["features"].append(features.half().cpu())
        parts["latents"].append(latents.unflatten(0, views.shape[:2]).half().cpu())
        parts["identities"].append(eyes.identities(images).cpu())
    return {name: torch.cat(of) for name, of in parts.items()}


def changed(images: torch.Tensor) -> torch.Tensor:
    """The same faces [B, 3, H, W] a little shifted, scaled and lit otherwise; the same picture always the same way."""
    results = []
    for image in images:
        seed = zlib.crc32((image * 127).byte().numpy().tobytes())
        uniform = torch.rand(5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        scale = 1 + 0.06 * float(uniform[0])
        matrix = torch.tensor([[scale, 0, 0.05 * float(uniform[1])], [0, scale, 0.05 * float(uniform[2])]])
        grid = F.affine_grid(matrix[None], [1, *image.shape], align_corners=False)
        moved = F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]
        results.append((moved * (1 + 0.2 * uniform[3]) + 0.12 * uniform[4]).clamp(-1, 1))
    return torch.stack(results)


def rows_in(file: Path) -> int:
    """How many faces a chunk holds; 0 without one."""
    if not file.exists():
        return 0
    with _opened(file) as chunk:
        return int((chunk.metadata() or {}).get("rows", "0"))


def _opened(file: Path):
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise FileError(f"{file} is damaged ({error}): delete it and start again, it is made anew.") from error


class Prepared:
    """The chunks of `count` faces, read from the disk as they are needed: they may be larger than the memory."""

    def __init__(self, folder: Folder, count: int) -> None:
        self.folder, self.count = folder, count
        self._open: dict[tuple[str, int], object] = {}

    def rows(self, name: str, indices: np.ndarray, kind: Callable[[Folder], Path] = lambda f: f.prepared):
        """`name` of the faces `indices`, stacked, in the dtype of the file."""
        # Not torch.stack: on the CPU torch 2.1's autocast to bfloat16 cannot take float16.
        return torch.from_numpy(np.stack([self._slice(name, kind(self.folder), int(i)).numpy() for i in indices]))

    def identities(self, indices: np.ndarray) -> torch.Tensor:
        """Who the faces are, told apart, [n, 128]."""
        return self.told_apart(self.rows("identities", indices))

    def told_apart(self, identities: torch.Tensor) -> torch.Tensor:
        """`identities` [n, 128] less what all faces of this build have in common, unit vectors: faces that one
        checkpoint drew are alike in much that says nothing about who each of them is."""
        return F.normalize(identities - self.center.to(identities), dim=-1)

    @cached_property
    def center(self) -> torch.Tensor:
        """The mean of some of the faces' identities [128], taken from all over the build."""
        some = np.linspace(0, self.count - 1, min(self.count, _COMMON)).astype(int)
        return self.rows("identities", some).mean(0)

    def targets(self, indices: np.ndarray) -> torch.Tensor:
        """θ float32 [n, layers, a + b] of the faces' pre-optimized LiDBs."""
        return self.rows("theta", indices, lambda f: f.targets).float()

    def _slice(self, name: str, folder: Path, index: int) -> torch.Tensor:
        first = index // CHUNK * CHUNK
        key = (str(folder), first)
        if key not in self._open:
            if len(self._open) >= 256:  # each is an open file
                self._open.clear()
            self._open[key] = _opened(self.folder.chunk(folder, first))
        row = index - first
        return self._open[key].get_slice(name)[row : row + 1][0]  # type: ignore[attr-defined]
