"""What a step of the training looks at: random by the step alone, and shared out to all processes."""

import numpy as np
import torch

from ..hosts.transfer import to_device_async
from ..hypernet.loss import IdentityLoss
from ..hypernet.training import Batch, PriorSamples, random_noise, random_sample_timesteps
from ..personalize.prior_preservation import STYLES, WITHIN, PriorPreservation, class_prompt
from ..sampling.schedule import add_noise
from .context import Context
from .prepare import Prepared


class Batches:
    """The batches of a training on `faces`, each this process's part of the one that all share."""

    def __init__(
        self, context: Context, prepared: Prepared, prompt: str, faces: np.ndarray, identity: IdentityLoss | None
    ) -> None:  # fmt: skip
        self.options, self.host, self.processes = context.options, context.host, context.processes
        self.prepared, self.prompt, self.faces, self.identity = prepared, prompt, faces, identity
        self.part = context.processes.slice_of(self.options.batch)
        self.prior_batch = int(self.options.prior_share * self.options.batch)
        with self.host.frozen(), torch.no_grad():
            self.styles = PriorPreservation.of(self.host, prompt, class_prompt(prompt)) if self.prior_batch else None

    def of(self, rng: np.random.Generator, with_targets: bool) -> Batch:
        """One batch; nothing but `rng` decides about it."""
        chosen = rng.choice(self.faces, self.options.batch, replace=False)
        view, side = rng.integers(0, 2, (2, len(chosen)))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        part, rows = self.part, np.arange(self.part.stop - self.part.start)
        chosen, view, side = chosen[part], view[part], side[part]
        identity = self.identity
        latents = self.prepared.rows("latents", chosen)[rows, side].float()
        noise, timesteps = random_noise(self.host, (self.options.batch, *latents.shape[1:]), generator)
        sample_noise = torch.randn(noise.shape, generator=generator)[part] if identity else None
        prior = self._prior_samples(latents, generator)
        batch = Batch(
            self.prepared.rows("features", chosen)[rows, view].float(), latents, [self.prompt] * len(chosen),
            self.prepared.targets(chosen) if with_targets else None,
            self.prepared.identities(chosen) if identity else None,
            noise[part], timesteps[part], sample_noise,
            random_sample_timesteps(identity, len(self.host.alphas_cumprod), generator) if identity else None, prior,
        )  # fmt: skip
        return batch.map(lambda tensor: tensor if tensor.is_cuda else to_device_async(tensor, self.host.device))

    def _prior_samples(self, latents: torch.Tensor, generator: torch.Generator) -> PriorSamples | None:
        """Of the whole batch's prior samples those of this process's part, whose `latents` these are."""
        if self.styles is None:
            return None
        count = self.prior_batch
        noise, timesteps = random_noise(self.host, (count, *latents.shape[1:]), generator, WITHIN)
        # The order of a batch is random: from six on, each style has its places.
        styles = torch.arange(count) % len(STYLES)
        if count < len(STYLES):
            styles = torch.randint(0, len(STYLES), (count,), generator=generator)
        places = torch.arange(count) * self.options.batch // count
        mine = (places >= self.part.start) & (places < self.part.stop)
        if not mine.any():
            return None
        rows, timesteps, styles = places[mine] - self.part.start, timesteps[mine], styles[mine]
        alphas_cumprod = self.host.alphas_cumprod.cpu()[timesteps]
        # So that the mean over all processes is that over all prior samples.
        share = len(rows) * self.processes.count / count
        return PriorSamples(
            rows, add_noise(latents[rows], noise[mine], alphas_cumprod), timesteps,
            [self.styles.prompts[style] for style in styles.tolist()],
            self.styles.class_cond[to_device_async(styles, self.host.device)], self.options.prior_weight * share,
        )  # fmt: skip
