"""DreamBooth (Ruiz et al., arXiv 2208.12242): the whole UNet is trained, with or without prior preservation.

After diffusers' `examples/dreambooth/train_dreambooth.py` at its defaults: AdamW, constant rate, gradients clipped to
norm 1, prior loss weight 1, one photo a step. With prior preservation the text encoder is trained too, as that script
recommends for faces (`--train_text_encoder`): on this checkpoint "a sks face" and "a face" begin as nearly the same
condition, and a UNet that is taught both at once learns neither.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.sampling.schedule import random_samples

from .method import CLASS_PROMPT, Descent, Learned, Task, Watch, denoising_loss, weights_moved


@dataclass(frozen=True)
class ModelLearned:
    """The whole networks' weights, by the names that they have in `networks`."""

    weights: dict[str, torch.Tensor]

    def applied(self, host: DiffusersHost, multiplier: float) -> AbstractContextManager[None]:
        return weights_moved(networks(host), self.weights, multiplier)

    def save(self, folder: Path) -> Path:
        save_file({name: weight.half() for name, weight in self.weights.items()}, folder / "model.safetensors")
        return folder / "model.safetensors"


def networks(host: DiffusersHost) -> nn.ModuleDict:
    return nn.ModuleDict({"unet": host.unet, "text_encoder": host.text_encoder})


@dataclass(frozen=True)
class DreamBooth:
    steps: int = 1200
    prior: bool = True
    sweep: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        host, generator = task.host, torch.Generator().manual_seed(task.seed)
        subject, models = task.subject(), networks(host)
        host.unet.train().requires_grad_(True)
        host.text_encoder.train().requires_grad_(self.prior)
        trained = {name: parameter for name, parameter in models.named_parameters() if parameter.requires_grad}
        descent = Descent(list(trained.values()), lr or self.sweep[0])

        def keep() -> Learned:
            return ModelLearned({name: parameter.detach().clone() for name, parameter in trained.items()})

        frozen_condition = host.encode_prompts([subject.prompt]).detach()
        for step in range(1, steps + 1):
            condition = host.encode_prompts([subject.prompt, CLASS_PROMPT]) if self.prior else frozen_condition
            loss = denoising_loss(host, *random_samples(host, subject.latents, 1, generator), condition[:1])
            if self.prior:
                chosen = task.prior[torch.randint(len(task.prior), (1,), generator=generator)]
                loss = loss + denoising_loss(host, *random_samples(host, chosen, 1, generator), condition[1:])
            descent.step(loss)
            watch(step, keep)
        return keep()
