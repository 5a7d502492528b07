"""A hypernetwork as AUTOMATIC1111's WebUI means it: small residual networks before the attention's keys and values.

After its `modules/hypernetworks/hypernetwork.py` at its defaults: layer structure 1, 2, 1, no activation, weights from
a normal distribution of spread 0.01, one pair of networks per width of context.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.sampling.schedule import random_samples

from .method import Descent, Learned, Task, Watch, denoising_loss

SIDES = ("to_k", "to_v")


class Residual(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.Linear(2 * width, width))
        for layer in self:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class NetworksLearned:
    networks: nn.ModuleDict

    @contextmanager
    def applied(self, host: DiffusersHost, multiplier: float) -> Iterator[None]:
        def before(side: str):
            def hook(_module, inputs):
                x = inputs[0]
                return (x + multiplier * self.networks[f"{side}_{x.shape[-1]}"](x),)

            return hook

        hooks = [module.register_forward_pre_hook(before(side)) for side, module in _keys_and_values(host)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def save(self, folder: Path) -> Path:
        state = {name: tensor.detach().half() for name, tensor in self.networks.state_dict().items()}
        save_file(state, folder / "hypernetwork.safetensors")
        return folder / "hypernetwork.safetensors"


@dataclass(frozen=True)
class WebuiHypernetwork:
    steps: int = 1200
    sweep: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 5e-3)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        host, generator = task.host, torch.Generator().manual_seed(task.seed)
        torch.manual_seed(task.seed)
        widths = sorted({(side, module.in_features) for side, module in _keys_and_values(host)})
        networks = nn.ModuleDict({f"{side}_{width}": Residual(width) for side, width in widths})
        with host.frozen():
            subject = task.subject()
            condition = host.encode_prompts([subject.prompt]).detach()
            descent = Descent(list(networks.parameters()), lr or self.sweep[0])
            for step in range(1, steps + 1):
                with NetworksLearned(networks).applied(host, 1.0):
                    loss = denoising_loss(host, *random_samples(host, subject.latents, 1, generator), condition)
                descent.step(loss)
                watch(step, lambda: NetworksLearned(_copy(networks)))
        return NetworksLearned(networks)


def _keys_and_values(host: DiffusersHost) -> list[tuple[str, nn.Linear]]:
    named = ((name.rpartition(".")[2], module) for name, module in host.unet.named_modules())
    return [(side, module) for side, module in named if side in SIDES]


def _copy(networks: nn.ModuleDict) -> nn.ModuleDict:
    copied = nn.ModuleDict({name: Residual(network[0].in_features) for name, network in networks.items()})
    copied.load_state_dict(networks.state_dict())
    return copied
