"""What a step of the training looks at: random by the step alone, and shared out to all processes."""

from dataclasses import replace

import numpy as np
import torch

from ..hosts.protocol import Host
from ..hosts.transfer import sent
from ..hypernet.lesson import Batch, Described, Lesson, Preserved
from ..hypernet.training import drawn_noise, drawn_timesteps
from ..personalize.style_prior import STYLES, WITHIN, StylePrior, some_styles
from ..personalize.subject import class_prompt
from ..sampling.schedule import add_noise
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .store import FaceStore


class Batches:
    """The batches of a training on `people`, each this process's part of the one that all share."""

    def __init__(
        self, options: BuildOptions, store: FaceStore, prepared: Prepared, host: Host, prompt: str, people: np.ndarray,
        lesson: Lesson, processes: Processes,
    ) -> None:  # fmt: skip
        self.options, self.store, self.prepared, self.host, self.prompt = options, store, prepared, host, prompt
        self.people, self.lesson, self.processes = people, lesson, processes
        self.part = processes.slice_of(options.batch)
        self.styled = int(options.styled * options.batch)
        with host.frozen(), torch.no_grad():
            self.unsaid = host.encode_prompts([options.negative]) if lesson.words else None
            self.styles = StylePrior.of(host, prompt, class_prompt(prompt)) if self.styled else None

    def of(self, rng: np.random.Generator, with_targets: bool) -> Batch:
        """One batch; nothing but `rng` decides about it."""
        chosen = rng.choice(self.people, self.options.batch, replace=False)
        seen, shown = rng.integers(0, 2, (2, len(chosen)))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        part, rows = self.part, np.arange(self.part.stop - self.part.start)
        chosen, seen, shown = chosen[part], seen[part], shown[part]
        lesson = self.lesson
        latents = self.prepared.rows("latents", chosen)[rows, shown].float()
        noise, timesteps = drawn_noise(self.host, (self.options.batch, *latents.shape[1:]), generator, lesson)
        batch = Batch(
            self.prepared.rows("features", chosen)[rows, seen].float(), latents, [self.prompt] * len(chosen),
            noise=noise[part], timesteps=timesteps[part],
        )  # fmt: skip
        if lesson.identity is not None:
            drawing = torch.randn(noise.shape, generator=generator)[part]
            batch = replace(batch, identities=self.prepared.identities(chosen), drawing=drawing)
        if self.unsaid is not None:
            batch = replace(batch, described=self._described(chosen, self.unsaid))
        batch = replace(batch, preserved=self._preserved(latents, generator))
        if lesson.identity is not None:
            drawn_at = drawn_timesteps(lesson.identity, len(self.host.alphas_cumprod), generator)
            batch = replace(batch, drawn_at=drawn_at)
        if with_targets:
            batch = replace(batch, targets=self.prepared.targets(chosen))
        return batch.map(lambda tensor: tensor if tensor.is_cuda else sent(tensor, self.host.device))

    @torch.no_grad()
    def _described(self, people: np.ndarray, unsaid: torch.Tensor) -> Described:
        """How these faces were drawn."""
        words = self.host.encode_prompts([self.store.prompts[person] for person in people])
        return Described(words, unsaid, self.options.cfg)

    def _preserved(self, latents: torch.Tensor, generator: torch.Generator) -> Preserved | None:
        """Of the styled people of the whole batch those who are in this process's part, whose `latents` these are."""
        if self.styles is None:
            return None
        lesson, count = Lesson(timesteps=WITHIN), self.styled
        noise, timesteps = drawn_noise(self.host, (count, *latents.shape[1:]), generator, lesson)
        # Who comes where in a batch is random: from six on, each style has its places.
        styles = some_styles(count, generator) if count < len(STYLES) else torch.arange(count) % len(STYLES)
        people = torch.arange(count) * self.options.batch // count
        mine = (people >= self.part.start) & (people < self.part.stop)
        if not mine.any():
            return None
        people, timesteps, styles = people[mine] - self.part.start, timesteps[mine], styles[mine]
        alphas_cumprod = self.host.alphas_cumprod.cpu()[timesteps]
        # So that the mean over all processes is that over all styled people.
        share = len(people) * self.processes.count / count
        return Preserved(
            people, add_noise(latents[people], noise[mine], alphas_cumprod), timesteps,
            [self.styles.prompts[style] for style in styles.tolist()],
            self.styles.general[sent(styles, self.host.device)], self.options.style_weight * share,
        )  # fmt: skip
