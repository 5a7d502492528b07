"""What training needs of every face, computed once and kept in chunks: the encoder's features, the latents, the
identity, and, where asked for, a pre-optimized LiDB as a target (HyperDreamBooth, section 4.2)."""

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
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.hypernetwork import WeightDecoder
from ..hypernet.targets import preoptimize
from ..images.tensors import to_tensor
from ..lidb.safetensors_bytes import to_bytes
from .context import Context
from .progress import Stage
from .store import FaceStore, Folder

# Faces to a file, named after the first of them.
_CHUNK = 64
_ENCODE = 8
# So many faces are enough to know what all have in common.
_COMMON = 1024


def prepare(context: Context, store: FaceStore) -> "Prepared":
    """Compute the features, latents and identities that are missing. Raises FileError, Paused."""

    def computed(indices: range) -> dict[str, torch.Tensor]:
        return _computed([store.crop(index) for index in indices], context.host, context.embedder)

    _complete(context, context.folder.prepared, "prepare", len(store), computed)
    return Prepared(context.folder, len(store))


def optimize_targets(context: Context, prepared: "Prepared", decoder: WeightDecoder) -> None:
    """Pre-optimize θ of every face where it is missing. Raises FileError, Paused."""
    decoder = decoder.to(context.host.device)

    def computed(indices: range) -> dict[str, torch.Tensor]:
        size = context.options.target_batch
        parts = [np.array(indices[start : start + size]) for start in range(0, len(indices), size)]
        thetas = [_optimized(context, prepared, decoder, part) for part in parts]
        return {"theta": torch.cat(thetas).half().cpu()}

    with context.host.frozen():
        _complete(context, context.folder.targets, "targets", prepared.count, computed)


def _complete(
    context: Context, folder: Path, stage: Stage, count: int, computed: Callable[[range], dict[str, torch.Tensor]]
) -> None:
    """Write the chunks of `count` faces that are missing, shared out to all processes. The last one may have been cut
    where the faces ended then."""
    chunks = [range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK)]
    missing = [faces for faces in chunks if _rows_in(_file(folder, faces.start)) != len(faces)]
    processes, tell = context.processes, context.reporter.begin(stage, count - sum(map(len, missing)), count)
    # The processes must agree on what is missing before the first of them writes.
    processes.wait()
    for number, faces in enumerate(missing):
        if number % processes.count == processes.rank:
            context.reporter.check()
            write_atomically(_file(folder, faces.start), to_bytes(computed(faces), {"rows": str(len(faces))}))
        tell(count - sum(map(len, missing[number + 1 :])))
    processes.wait()


def _computed(crops: list[np.ndarray], host: Host, embedder: FaceEmbedder) -> dict[str, torch.Tensor]:
    """features float16 [n, 2, tokens, channels], of the upright crop and of a mirrored, slightly changed one; latents
    float16 [n, 2, 4, h, w], upright and mirrored; identities float32 [n, 128]."""
    parts: dict[str, list[torch.Tensor]] = {"features": [], "latents": [], "identities": []}
    for start in range(0, len(crops), _ENCODE):
        images = to_tensor(crops[start : start + _ENCODE])
        views = torch.stack([images, changed(images.flip(-1))], dim=1)
        features = embedder.features(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        latents = host.encode_images(torch.stack([images, images.flip(-1)], dim=1).flatten(0, 1))
        parts["features"].append(features.half().cpu())
        parts["latents"].append(latents.unflatten(0, views.shape[:2]).half().cpu())
        parts["identities"].append(embedder.identities(images).cpu())
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


def _optimized(context: Context, prepared: "Prepared", decoder: WeightDecoder, indices: np.ndarray) -> torch.Tensor:
    """θ of some faces, in one pass a step."""
    options, host = context.options, context.host
    latents = prepared.rows("latents", indices).float().to(host.device)

    def latents_at(step: int) -> torch.Tensor:
        context.reporter.check()
        return latents[:, step % latents.shape[1]]

    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + int(indices[0]))
    return preoptimize(host, decoder, latents_at, decoder.config.prompt, generator, steps=options.target_steps)


def _file(folder: Path, face: int) -> Path:
    """What holds that face's numbers."""
    return folder / f"{face // _CHUNK * _CHUNK:08d}.safetensors"


def _rows_in(file: Path) -> int:
    """How many faces a chunk holds; 0 without one."""
    if not file.exists():
        return 0
    with _opened(file) as opened:
        return int((opened.metadata() or {}).get("rows", "0"))


def _opened(file: Path):
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise FileError(f"{file} is damaged ({error}): delete it and start again, it is made anew.") from error


class Prepared:
    """The chunks of `count` faces, read from the disk as they are needed: they may be larger than the memory."""

    def __init__(self, folder: Folder, count: int) -> None:
        self.folder, self.count = folder, count
        self._open: dict[Path, object] = {}

    def rows(self, name: str, indices: np.ndarray) -> torch.Tensor:
        """ "features", "latents" or "identities" of the faces `indices`, stacked, in the dtype of the file."""
        return self._stacked(self.folder.prepared, name, indices)

    def identities(self, indices: np.ndarray) -> torch.Tensor:
        """The faces' `centered` identities [n, 128]."""
        return self.centered(self.rows("identities", indices))

    def centered(self, identities: torch.Tensor) -> torch.Tensor:
        """`identities` [n, 128] less what all faces of this build have in common, unit vectors: faces that one
        checkpoint sampled are alike in much that says nothing about who each of them is."""
        return F.normalize(identities - self.center.to(identities), dim=-1)

    @cached_property
    def center(self) -> torch.Tensor:
        """The mean of some of the faces' identities [128], taken from all over the build."""
        some = np.linspace(0, self.count - 1, min(self.count, _COMMON)).astype(int)
        return self.rows("identities", some).mean(0)

    def targets(self, indices: np.ndarray) -> torch.Tensor:
        """θ float32 [n, layers, a + b] of the faces' pre-optimized LiDBs."""
        return self._stacked(self.folder.targets, "theta", indices).float()

    def _stacked(self, folder: Path, name: str, indices: np.ndarray) -> torch.Tensor:
        # Not torch.stack: on the CPU torch 2.1's autocast to bfloat16 cannot take float16.
        return torch.from_numpy(np.stack([self._slice(folder, name, int(i)).numpy() for i in indices]))

    def _slice(self, folder: Path, name: str, index: int) -> torch.Tensor:
        file, row = _file(folder, index), index % _CHUNK
        if file not in self._open:
            if len(self._open) >= 256:  # each is an open file
                self._open.clear()
            self._open[file] = _opened(file)
        return self._open[file].get_slice(name)[row : row + 1][0]  # type: ignore[attr-defined]
