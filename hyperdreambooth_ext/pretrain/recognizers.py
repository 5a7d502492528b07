"""The identity loss's latent identity nets: trained on the build's faces before the hypernetwork, and on with it.

They learn to see in latents what the bundled recognizer sees in pictures. The hypernetwork's samples are not quite the
faces that they learned from, and what it learns first is to fool them: their cosine goes on rising and the likeness in
the picture does not (docs/build.md). So after every step its samples are decoded, and the nets learn the
identity that is really in them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..hosts.protocol import Host
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.latent_identity import LatentIdentityEnsemble, LatentIdentityNet, moved, recognition_losses, softened
from ..sampling.sampler import decoded
from .context import Context
from .loop import Loop, LoopOptions, append_line, write_weights
from .prepare import Prepared

# Spelled as when the first builds were begun.
_FILE = "recogniser.safetensors"
_BATCH = 64
_LR_BESIDE = 3e-4


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


class RecognizerTrainer:
    """Trains `net`, frozen otherwise, in place, beside the hypernetwork. Each step's samples are handed to `take`;
    `after_update` learns from them and from as many of the `faces`, so that what is known of faces stays known."""

    def __init__(
        self, context: Context, net: LatentIdentityEnsemble, prepared: Prepared, faces: np.ndarray, part: slice
    ) -> None:  # fmt: skip
        self.context, self.net, self.prepared, self.faces, self.part = context, net, prepared, faces, part
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=_LR_BESIDE, betas=(0.9, 0.99))
        self._taken: tuple[torch.Tensor, torch.Tensor] | None = None

    def take(self, samples: torch.Tensor, identities: torch.Tensor) -> None:
        """Clean latents [B, 4, h, w] of this process's samples, and the identities that they should have, [B, 128]."""
        self._taken = samples.float(), identities

    def after_update(self, step: int, dry_run: bool = False) -> dict[str, float]:
        """Learn; returns the samples' mean cosine to their identities, in the picture (`id_cos_image`) and by the nets
        (`id_cos_latent`). A step without samples trains nothing, a `dry_run` only takes the time."""
        if self._taken is None:
            return {}
        taken, self._taken = self._taken, None
        with trainable(self.net):
            figures = self._gradients(step, *taken)
            if not dry_run:
                self.context.processes.mean([p.grad for p in self.net.parameters() if p.grad is not None])
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return figures

    def _gradients(self, step: int, samples: torch.Tensor, identities: torch.Tensor) -> dict[str, float]:
        in_image = identities_of_latents(self.context.host, self.context.embedder, samples)
        in_image = self.prepared.centered(in_image).to(samples.device)
        faces, known = self._random_faces(step)
        latents, wanted = torch.cat([samples, faces.to(samples)]), torch.cat([in_image, known.to(in_image)])
        in_latent = self.net.combined([of_net[: len(samples)] for of_net in backward(self.net, latents, wanted)])
        cosines = {"id_cos_image": in_image, "id_cos_latent": in_latent}
        return {name: float((of * identities).sum(-1).mean()) for name, of in cosines.items()}

    def _random_faces(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and identities of this process's part of the faces that are repeated; random by the step alone."""
        rng = np.random.default_rng((self.context.options.seed, step, 1))
        count = (self.part.stop - self.part.start) * self.context.processes.count
        chosen = rng.choice(self.faces, count, replace=False)
        latents = self.prepared.rows("latents", chosen)[np.arange(count), rng.integers(0, 2, count)].float()
        return softened(latents, rng)[self.part], self.prepared.identities(chosen[self.part])

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises KeyError, RuntimeError or ValueError where it is another network's."""
        # Version 0.1 called it "readers".
        self.net.load_state_dict(state["net"] if "net" in state else state["readers"])
        self.optimizer.load_state_dict(state["optimizer"])


def identities_of_latents(host: Host, embedder: FaceEmbedder, latents: torch.Tensor) -> torch.Tensor:
    """Clean latents [B, 4, h, w] -> the identities that the bundled recognizer sees in their pictures, [B, 128]."""
    return torch.cat([embedder.identities(some.clamp(-1, 1)) for some in decoded(host, latents)])


def backward(net: LatentIdentityEnsemble, latents: torch.Tensor, wanted: torch.Tensor) -> list[torch.Tensor]:
    """Each net's identities [B, 128] of `latents` [B, 4, h, w]; the gradients towards those `wanted` are added up."""
    with torch.enable_grad():
        identities = [one(latents) for one in net.nets]
        torch.stack([(1 - (of_net * wanted).sum(-1)).mean() for of_net in identities]).sum().backward()
    return [of_net.detach() for of_net in identities]


@contextmanager
def trainable(net: LatentIdentityEnsemble) -> Iterator[None]:
    """Within this context the frozen `net` asks for gradients."""
    net.requires_grad_(True)
    try:
        yield
    finally:
        net.requires_grad_(False)
