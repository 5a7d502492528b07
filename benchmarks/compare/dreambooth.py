"""DreamBooth (Ruiz et al., arXiv 2208.12242): the whole UNet is trained, with or without prior preservation.

After diffusers' `examples/dreambooth/train_dreambooth.py` at its defaults: AdamW, constant rate, gradients clipped to
norm 1, prior loss weight 1, one photo a step.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost

from .method import CLASS_PROMPT, Descent, Learned, Task, Watch, denoising_loss, weights_moved


@dataclass(frozen=True)
class UnetLearned:
    weights: dict[str, torch.Tensor]

    def applied(self, host: DiffusersHost, multiplier: float) -> AbstractContextManager[None]:
        return weights_moved(host.unet, self.weights, multiplier)

    def save(self, folder: Path) -> Path:
        save_file({name: weight.half() for name, weight in self.weights.items()}, folder / "unet.safetensors")
        return folder / "unet.safetensors"


@dataclass(frozen=True)
class DreamBooth:
    steps: int = 1200
    prior: bool = True
    sweep: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        host, generator = task.host, torch.Generator().manual_seed(task.seed)
        subject = task.subject()
        with torch.no_grad():
            condition, of_anybody = host.encode_prompts([subject.prompt]), host.encode_prompts([CLASS_PROMPT])
        host.unet.train().requires_grad_(True)
        descent = Descent(list(host.unet.parameters()), lr or self.sweep[0])

        def keep() -> Learned:
            return UnetLearned({name: p.detach().clone() for name, p in host.unet.named_parameters()})

        for step in range(1, steps + 1):
            loss = denoising_loss(host, *subject.noisy_batch(host, 1, generator), condition)
            if self.prior:
                chosen = task.prior[torch.randint(len(task.prior), (1,), generator=generator)]
                anybody = type(subject)(subject.image, chosen, None, CLASS_PROMPT)
                loss = loss + denoising_loss(host, *anybody.noisy_batch(host, 1, generator), of_anybody)
            descent.step(loss)
            watch(step, keep)
        return UnetLearned({name: p.detach() for name, p in host.unet.named_parameters()})
