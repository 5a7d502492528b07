"""The identity loss's recognizers: taught, on the build's own faces, to see in latents what the bundled one sees."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from ..files import write_atomically
from ..hypernet.latent_recognizer import LatentRecognizer, Readers, moved, recognition_losses, softened
from .folder import Folder
from .loop import Loop, LoopOptions, append_line
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .progress import BuildProgress, Clock, Reporter

_BATCH = 64


@dataclass(frozen=True)
class _School:
    """How one recognizer is taught. The second, as in the bundled training, sees its faces moved, with two fifths of
    what it knows left out at random, for longer, so that the two are not satisfied by the same mistakes."""

    folder: Path
    steps: int
    moved: bool = False
    dropout: float = 0.0
    weight_decay: float = 0.01

    @property
    def file(self) -> Path:
        return self.folder / "recogniser.safetensors"


def teach_recognizers(
    folder: Folder, options: BuildOptions, prepared: Prepared, device: torch.device, reporter: Reporter,
    processes: Processes,
) -> Readers:  # fmt: skip
    """Two recognizers that answer as one, taught by the first process and read by all, frozen, on `device`.

    Raises FileError, Paused.
    """
    steps = options.recognizer_steps
    schools = (
        _School(folder.recognizer, steps),
        _School(folder.second_recognizer, 2 * steps, moved=True, dropout=0.4, weight_decay=0.05),
    )
    for school in schools:
        if processes.first and not school.file.exists():
            _teach(school, options, prepared, device, reporter)
    processes.wait()
    return Readers.load(school.file for school in schools).to(device)


def _teach(
    school: _School, options: BuildOptions, prepared: Prepared, device: torch.device, reporter: Reporter
) -> None:  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = LatentRecognizer(school.dropout).to(device)
    loop_options = LoopOptions(
        school.steps, lr=1e-3, seed=options.seed, ema=0.98, weight_decay=school.weight_decay
    )  # fmt: skip
    loop = Loop(school.folder, network, loop_options)
    clock = Clock(loop.step, school.steps)
    faces = np.arange(options.held_out, prepared.count)

    def losses_of(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(faces, min(_BATCH, len(faces)), replace=False)
        latents, wanted = _seen(prepared, chosen, rng.integers(0, 2, len(chosen)), device)
        latents = softened(latents, rng)
        latents = moved(latents, rng) if school.moved else latents
        people = torch.from_numpy(chosen).to(device)
        # What is left out depends on the step alone, as everything here does.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(1 << 62)))
            return recognition_losses(network(latents), wanted, people)

    def after_step(step: int) -> None:
        reporter.tell(BuildProgress("recognizer", step, school.steps, clock.left(step)))

    loop.run(losses_of, reporter, after_step)
    weights = {key: value.cpu().contiguous() for key, value in loop.average.module.state_dict().items()}
    write_atomically(school.file, save(weights))
    recognizer = LatentRecognizer.load(school.file).to(device)
    unseen = np.arange(options.held_out)
    latents, wanted = _seen(prepared, unseen, np.zeros_like(unseen), device)
    cosine = float((recognizer(latents) * wanted).sum(-1).mean())
    append_line(school.folder / "log.jsonl", {"step": school.steps, "cosine_of_held_out_faces": round(cosine, 4)})


def _seen(
    prepared: Prepared, faces: np.ndarray, side: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The faces' latents, upright (0) or mirrored (1), and who they are."""
    latents = prepared.rows("latents", faces)[np.arange(len(faces)), side].float().to(device)
    return latents, prepared.identities(faces).to(device)
