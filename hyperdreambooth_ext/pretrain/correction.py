"""The recognizers go on learning while they teach.

They learned from faces. What the hypernetwork draws is not quite that, and what it learns first is to please them in
ways that nobody sees in the picture: their verdict goes on rising and the likeness does not (docs/builds-tried.md).
So after every step its drawings are decoded, and the recognizers learn who is really seen in them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..hosts.protocol import Host
from ..hypernet.embedder import Eyes
from ..hypernet.latent_recognizer import Readers, softened
from ..sampling.sampler import decoded
from .prepare import Prepared
from .processes import Processes

LR = 3e-4


class Correction:
    """Corrects `readers`, frozen otherwise, in place. Each step's drawings are handed to `take`; `after_update` learns
    from them and from as many of the `people`, so that what is known of faces stays known."""

    def __init__(
        self, readers: Readers, host: Host, eyes: Eyes, prepared: Prepared, people: np.ndarray, part: slice,
        processes: Processes, seed: int,
    ) -> None:  # fmt: skip
        self.readers, self.host, self.eyes, self.prepared, self.people = readers, host, eyes, prepared, people
        self.part, self.processes, self.seed = part, processes, seed
        self.optimizer = torch.optim.AdamW(readers.parameters(), lr=LR, betas=(0.9, 0.99))
        self._taken: tuple[torch.Tensor, torch.Tensor] | None = None

    def take(self, drawings: torch.Tensor, identities: torch.Tensor) -> None:
        """Clean latents [B, 4, h, w] of this process's drawings, and who they should be, [B, 128]."""
        self._taken = drawings.float(), identities

    def after_update(self, step: int) -> dict[str, float]:
        """Learn; returns how alike the drawings really are, and how alike the recognizers took them to be. A step that
        drew nobody teaches nothing."""
        if self._taken is None:
            return {}
        with learning(self.readers):
            figures = self._gradients(step, *self._taken)
            self.processes.mean([p.grad for p in self.readers.parameters() if p.grad is not None])
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._taken = None
        return figures

    def tried(self, step: int) -> None:
        """Take the time that `after_update` takes, and learn nothing."""
        if self._taken is not None:
            with learning(self.readers):
                self._gradients(step, *self._taken)
                self.optimizer.zero_grad(set_to_none=True)
        self._taken = None

    def _gradients(self, step: int, drawings: torch.Tensor, identities: torch.Tensor) -> dict[str, float]:
        seen = self.prepared.told_apart(who_is_seen(self.host, self.eyes, drawings)).to(drawings.device)
        faces, people = self._faces(step)
        latents, wanted = torch.cat([drawings, faces.to(drawings)]), torch.cat([seen, people.to(seen)])
        told = self.readers.together([names[: len(drawings)] for names in answered(self.readers, latents, wanted)])
        return {name: float((of * identities).sum(-1).mean()) for name, of in (("seen", seen), ("told", told))}

    def _faces(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and identities of this process's part of the faces that are repeated; random by the step alone."""
        rng = np.random.default_rng((self.seed, step, 1))
        count = (self.part.stop - self.part.start) * self.processes.count
        chosen = rng.choice(self.people, count, replace=False)
        latents = self.prepared.rows("latents", chosen)[np.arange(count), rng.integers(0, 2, count)].float()
        return softened(latents, rng)[self.part], self.prepared.identities(chosen[self.part])

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"readers": self.readers.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises KeyError, RuntimeError or ValueError where it is another network's."""
        self.readers.load_state_dict(state["readers"])
        self.optimizer.load_state_dict(state["optimizer"])


def who_is_seen(host: Host, eyes: Eyes, drawings: torch.Tensor) -> torch.Tensor:
    """Clean latents [B, 4, h, w] -> who the bundled recognizer sees in their pictures, [B, 128]."""
    return torch.cat([eyes.identities(some.clamp(-1, 1)) for some in decoded(host, drawings)])


def answered(readers: Readers, latents: torch.Tensor, wanted: torch.Tensor) -> list[torch.Tensor]:
    """Each reader's answers [B, 128] to `latents` [B, 4, h, w]; the gradients towards those `wanted` are added up."""
    with torch.enable_grad():
        named = [reader(latents) for reader in readers.readers]
        torch.stack([(1 - (names * wanted).sum(-1)).mean() for names in named]).sum().backward()
    return [names.detach() for names in named]


@contextmanager
def learning(readers: Readers) -> Iterator[None]:
    """Within this context the frozen `readers` ask for gradients."""
    readers.requires_grad_(True)
    try:
        yield
    finally:
        readers.requires_grad_(False)
