"""The identity loss's latent identity nets, trained on the build's faces before the hypernetwork: they learn to see in
latents what the bundled recognizer sees in pictures."""

from pathlib import Path

import numpy as np
import torch

from ..hypernet.latent_identity import LatentIdentityEnsemble, LatentIdentityNet, moved, recognition_losses, softened
from .context import Context
from .loop import Loop, LoopOptions, append_line, write_weights
from .prepare import Prepared

# Spelled as when the first builds were begun.
_FILE = "recogniser.safetensors"
_BATCH = 64


def train_recognizers(context: Context, prepared: Prepared) -> LatentIdentityEnsemble:
    """Two nets, trained by the first process and read by all, frozen. Raises FileError, Paused."""
    (first, second), steps = context.folder.recognizers, context.options.recognizer_steps
    if context.processes.first:
        _train(context, prepared, first, steps)
        # The second sees its faces moved, with more dropout and weight decay and for longer: so that the two are not
        # fooled by the same mistakes.
        _train(context, prepared, second, 2 * steps, shifted=True, dropout=0.4, weight_decay=0.05)
    context.processes.wait()
    return LatentIdentityEnsemble.load(folder / _FILE for folder in (first, second)).to(context.host.device)


def _train(
    context: Context, prepared: Prepared, folder: Path, steps: int, shifted: bool = False, dropout: float = 0.0,
    weight_decay: float = 0.01,
) -> None:  # fmt: skip
    """Train one net, unless that was done before."""
    if (folder / _FILE).exists():
        return
    options, device, reporter = context.options, context.host.device, context.reporter
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = LatentIdentityNet(dropout).to(device)
    loop_options = LoopOptions(steps, lr=1e-3, seed=options.seed, ema=0.98, weight_decay=weight_decay)
    loop = Loop(folder, net, loop_options)
    tell = reporter.begin("recognizer", loop.step, steps)
    faces = np.arange(options.held_out, prepared.count)

    def losses_of(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(faces, min(_BATCH, len(faces)), replace=False)
        latents, identities = _latents_and_identities(prepared, chosen, rng.integers(0, 2, len(chosen)), device)
        latents = softened(latents, rng)
        latents = moved(latents, rng) if shifted else latents
        # The dropout depends on the step alone, as everything here does.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(1 << 62)))
            return recognition_losses(net(latents), identities, torch.from_numpy(chosen).to(device))

    loop.run(losses_of, reporter, tell)
    write_weights(folder / _FILE, loop.average.module, loop.step)
    held_out = np.arange(options.held_out)
    latents, identities = _latents_and_identities(prepared, held_out, np.zeros_like(held_out), device)
    cosine = float((LatentIdentityNet.load(folder / _FILE).to(device)(latents) * identities).sum(-1).mean())
    append_line(folder / "log.jsonl", {"step": steps, "cosine_of_held_out_faces": round(cosine, 4)})


def _latents_and_identities(
    prepared: Prepared, faces: np.ndarray, side: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The faces' latents, upright (0) or mirrored (1), and their identities."""
    latents = prepared.rows("latents", faces)[np.arange(len(faces)), side].float().to(device)
    return latents, prepared.identities(faces).to(device)
