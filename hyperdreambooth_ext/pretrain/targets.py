"""Targets for all faces: pre-optimized LiDBs, many people in one forward and backward (section 4.2)."""

import numpy as np
import torch

from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import WeightDecoder
from ..hypernet.targets import preoptimize
from ..lidb.safetensors_bytes import to_bytes
from .folder import Folder, chunks
from .options import BuildOptions
from .prepare import Prepared, rows_in
from .processes import Processes
from .progress import BuildProgress, Clock, Reporter
from .weights import placed


def optimize_targets(
    folder: Folder, options: BuildOptions, prepared: Prepared, host: Host, decoder: WeightDecoder, reporter: Reporter,
    processes: Processes,
) -> None:  # fmt: skip
    """θ of every face, cached in chunks: those that exist are kept. Raises FileError, Paused."""
    missing = [part for part in chunks(prepared.count) if not _complete(folder, *part)]
    clock, done = Clock(0, len(missing)), 0
    decoder = placed(decoder, host.device)
    with host.frozen():
        for number, (first, end) in enumerate(missing):
            if number % processes.count == processes.rank:
                theta = _optimized(np.arange(first, end), options, prepared, host, decoder, reporter)
                content = to_bytes({"theta": theta.half().cpu()}, {"rows": str(len(theta))})
                write_atomically(folder.chunk(folder.targets, first), content)
            done += 1
            reporter.tell(BuildProgress("targets", end, prepared.count, clock.left(done)))
    processes.wait()


def _complete(folder: Folder, first: int, end: int) -> bool:
    """Whether the chunk is there with all its faces: the last one may have been cut where the faces ended then."""
    return rows_in(folder.chunk(folder.targets, first)) == end - first


def _optimized(
    indices: np.ndarray, options: BuildOptions, prepared: Prepared, host: Host, decoder: WeightDecoder,
    reporter: Reporter,
) -> torch.Tensor:  # fmt: skip
    thetas = []
    for start in range(0, len(indices), options.target_batch):
        part = indices[start : start + options.target_batch]
        latents = prepared.rows("latents", part).float().to(host.device)

        def latents_at(step: int, latents=latents) -> torch.Tensor:
            reporter.check()
            return latents[:, step % latents.shape[1]]

        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + int(part[0]))
        thetas.append(
            preoptimize(host, decoder, latents_at, decoder.config.prompt, generator, steps=options.target_steps)
        )
    return torch.cat(thetas)
