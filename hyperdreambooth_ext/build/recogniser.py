"""The identity loss's recogniser: taught, on the build's own faces, to see in latents what the bundled one sees."""

import numpy as np
import torch
from safetensors.torch import save

from ..files import write_atomically
from ..hypernet.latent_recogniser import LatentRecogniser, recognition_losses, softened
from .folder import Folder
from .loop import Loop, LoopOptions
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .progress import BuildProgress, Clock, Reporter

_BATCH = 64


def teach_recogniser(
    folder: Folder, options: BuildOptions, prepared: Prepared, device: torch.device, reporter: Reporter,
    processes: Processes,
) -> LatentRecogniser:  # fmt: skip
    """The recogniser, taught by the first process and read by all, frozen, on `device`. Raises FileError, Paused."""
    file = folder.recogniser / "recogniser.safetensors"
    if processes.first and not file.exists():
        _teach(folder, options, prepared, device, reporter)
    processes.wait()
    return LatentRecogniser.load(file).to(device)


def _teach(folder: Folder, options: BuildOptions, prepared: Prepared, device: torch.device, reporter: Reporter) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = LatentRecogniser().to(device)
    loop_options = LoopOptions(options.recogniser_steps, lr=1e-3, seed=options.seed, ema=0.98)
    loop = Loop(folder.recogniser, network, loop_options)
    clock = Clock(loop.step, options.recogniser_steps)
    faces = np.arange(options.held_out, prepared.count)

    def losses_of(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(faces, min(_BATCH, len(faces)), replace=False)
        side = rng.integers(0, 2, len(chosen))
        latents = prepared.rows("latents", chosen)[np.arange(len(chosen)), side].float().to(device)
        wanted = prepared.rows("identities", chosen).to(device)
        people = torch.from_numpy(chosen).to(device)
        return recognition_losses(network(softened(latents, rng)), wanted, people)

    def after_step(step: int) -> None:
        reporter.tell(BuildProgress("recogniser", step, options.recogniser_steps, clock.left(step)))

    loop.run(losses_of, reporter, after_step)
    weights = {key: value.cpu().contiguous() for key, value in loop.average.module.state_dict().items()}
    write_atomically(folder.recogniser / "recogniser.safetensors", save(weights))
