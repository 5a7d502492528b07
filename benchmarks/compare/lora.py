"""LoRA (Hu et al., arXiv 2106.09685) on the UNet's attention, with peft.

After diffusers' `examples/dreambooth/train_dreambooth_lora.py`: q, k, v and out, alpha = rank, Gaussian start.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.sampling.schedule import random_samples

from .method import Descent, Learned, Task, Watch, denoising_loss, weights_moved

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class LoraLearned:
    """peft's names -> lora_A [rank, in] and lora_B [out, rank]; alpha is the rank."""

    tensors: dict[str, torch.Tensor]

    def applied(self, host: DiffusersHost, multiplier: float) -> AbstractContextManager[None]:
        weights, towards = dict(host.unet.named_parameters()), {}
        for name, down in self.tensors.items():
            if name.endswith(".lora_A.weight"):
                layer = name.removesuffix(".lora_A.weight")
                up = self.tensors[f"{layer}.lora_B.weight"]
                towards[f"{layer}.weight"] = weights[f"{layer}.weight"].detach() + up @ down
        return weights_moved(host.unet, towards, multiplier)

    def save(self, folder: Path) -> Path:
        save_file({name: tensor.half() for name, tensor in self.tensors.items()}, folder / "lora.safetensors")
        return folder / "lora.safetensors"


@dataclass(frozen=True)
class Lora:
    rank: int
    steps: int = 500
    sweep: tuple[float, ...] = (2e-4, 1e-3, 3e-3, 1e-2)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        from peft import get_peft_model_state_dict

        host, generator = task.host, torch.Generator().manual_seed(task.seed)
        subject = task.subject()
        with torch.no_grad():
            condition = host.encode_prompts([subject.prompt])
        inject(host, self.rank)
        descent = Descent([p for p in host.unet.parameters() if p.requires_grad], lr or self.sweep[0])

        def keep() -> Learned:
            state = get_peft_model_state_dict(host.unet)
            return LoraLearned({name: tensor.detach().clone() for name, tensor in state.items()})

        for step in range(1, steps + 1):
            descent.step(denoising_loss(host, *random_samples(host, subject.latents, 1, generator), condition))
            watch(step, keep)
        return keep()


def inject(host: DiffusersHost, rank: int) -> None:
    """Put peft's layers into the UNet; they alone are trained. The host is of no other use after it."""
    from peft import LoraConfig, inject_adapter_in_model

    host.unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights="gaussian")
    inject_adapter_in_model(config, host.unet)
