"""How close a step of the finetune is to the smallest possible one, and how it compares with other people's.

    python run.py step [--shapes sd15 --size 256 --batch 1] [--runs 15] [--only smallest,peft]

Smallest: a forward pass of the same frozen model at the same shape and a backward pass through its activations alone;
no finetune of these weights can do less. On a graphics card it is a CUDA graph, as ours is there. Others: the same
layers and rank with peft, and with the layers of cloneofsimo's `lora`, each a whole step with its optimizer. Everyone
takes one step in turn, over and over, so that whatever else the machine does meets all alike. Prints the median, its
spread (quartiles) and the ratio to the smallest.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import zeros
from hyperdreambooth_ext.personalize.batch import Subject, TrainBatch, make_batch
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, Progress, finetune
from hyperdreambooth_ext.sampling.recorded import Recorded
from hyperdreambooth_ext.shipped import CHECKPOINT

from .machine import CLOCKS, add_machine_options
from .random_host import RandomHost

PROMPT = "a sks face"
OTHERS = ("smallest", "peft", "cloneofsimo")
# The third step of ours is recorded on a graphics card.
WARM_UP = 3


class InjectedLinear(nn.Module):
    """As cloneofsimo's lora_diffusion/lora.py (LoraInjectedLinear) computes."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.lora_down = nn.Linear(linear.in_features, rank, bias=False)
        self.dropout = nn.Dropout(0.1)
        self.lora_up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.normal_(self.lora_down.weight, std=1 / rank)
        nn.init.zeros_(self.lora_up.weight)
        self.to(linear.weight.device, linear.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.dropout(self.lora_up(self.lora_down(x)))


class Rival:
    """Somebody else's whole step on a host of its own: loss, backward, AdamW."""

    def __init__(self, host: DiffusersHost, subject: Subject, options: FinetuneOptions, kind: str) -> None:
        self._host, self._subject, self._options = host, subject, options
        self._generator = torch.Generator().manual_seed(0)
        for module in (host.unet, host.text_encoder, host.vae):
            module.requires_grad_(False)
        with torch.no_grad():
            self._condition = host.encode_prompts([PROMPT])
        {"smallest": lambda: None, "peft": self._peft, "cloneofsimo": self._cloneofsimo}[kind]()
        self._trained = [p for p in host.unet.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=1e-4) if self._trained else None
        smallest = Recorded(self._step) if kind == "smallest" and host.capturable else self._step
        self._take: Callable[[TrainBatch], torch.Tensor] = smallest

    def _targets(self) -> list[str]:
        layers = {x.key for x in Architecture.of(self._host.linears()).layers if x.key.startswith("lora_unet_")}
        keys = {module: key for key, module in self._host.linears().items()}
        return [name for name, module in self._host.unet.named_modules() if keys.get(module) in layers]

    def _peft(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        rank = self._options.rank
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=self._targets()), self._host.unet)

    def _cloneofsimo(self) -> None:
        for name in self._targets():
            parent, _, child = name.rpartition(".")
            linear = self._host.unet.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            setattr(self._host.unet.get_submodule(parent), child, InjectedLinear(linear, self._options.rank))

    def __call__(self) -> None:
        self._take(make_batch(self._host, self._subject, self._options.batch, self._generator))

    def _step(self, batch: TrainBatch) -> torch.Tensor:
        noisy = batch.noisy if self._optimizer else batch.noisy.detach().requires_grad_()
        condition = self._condition.expand(len(noisy), -1, -1)
        loss = F.mse_loss(self._host.predict(noisy, batch.timesteps, condition), batch.target)
        gradients = torch.autograd.grad(loss, self._trained or [noisy])
        if self._optimizer is not None:
            for parameter, gradient in zip(self._trained, gradients, strict=True):
                parameter.grad = gradient
            self._optimizer.step()
        return loss.detach()


def step_times(
    new_host: Callable[[], DiffusersHost], options: FinetuneOptions, others: tuple[str, ...], now
) -> dict[str, list[float]]:
    """Seconds of each step, ours (the product's own `finetune`) and the others' in turn."""
    host = new_host()
    side = host.default_size // 8
    latents = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0)).to(host.device)
    subject = Subject(torch.empty(0), latents, None, PROMPT)
    # The smallest step leaves the model as it is, so it can share ours.
    rivals = {kind: Rival(host if kind == "smallest" else new_host(), subject, options, kind) for kind in others}
    times: dict[str, list[float]] = {kind: [] for kind in ("ours", *others)}
    began = 0.0

    def settle() -> float:
        if host.device.type == "cuda":
            torch.cuda.synchronize()
        return now()

    def others_turn(_: Progress) -> None:
        nonlocal began
        times["ours"].append(settle() - began)
        for kind, rival in rivals.items():
            began = settle()
            rival()
            times[kind].append(settle() - began)
        began = settle()

    architecture = Architecture.of(host.linears())
    lidb = zeros(architecture, Basis(), options.rank, torch.Generator().manual_seed(0))
    with host.frozen():
        began = settle()
        finetune(host, subject, lidb, options, torch.Generator().manual_seed(0), others_turn)
    return {kind: of[WARM_UP:] or of for kind, of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=("faces128", "sd15"), default="faces128")
    parser.add_argument("--size", type=int, default=512, help="pixels, for --shapes sd15")
    parser.add_argument("--batch", type=int, default=FinetuneOptions().batch)
    parser.add_argument("--rank", type=int, default=FinetuneOptions().rank)
    prior = "further samples of ours that keep style words working; 0: all do the same work"
    parser.add_argument("--prior-batch", type=int, default=0, help=prior)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--only", default=",".join(OTHERS), help="whom to compare with, comma-separated")
    add_machine_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)

    def new_host() -> DiffusersHost:
        if args.shapes == "sd15":
            return RandomHost(args.device, dtype, args.size)
        return DiffusersHost(CHECKPOINT, args.device, dtype)

    options = FinetuneOptions(
        steps=args.runs + WARM_UP,
        rank=args.rank,
        batch=args.batch,
        prior_batch=args.prior_batch,
        micro_batch_size=args.batch + args.prior_batch,
    )
    times = step_times(new_host, options, tuple(filter(None, args.only.split(","))), CLOCKS[args.clock])
    smallest = statistics.median(times.get("smallest", times["ours"]))
    print(f"{args.shapes}, batch {args.batch}, rank {args.rank}, {args.dtype} on {args.device}, {args.threads} threads,"
          f" {args.clock} clock, {args.runs} steps each, in turn\n")  # fmt: skip
    print("| a step of | median ms | quartiles | of the smallest | of ours |\n|---|---|---|---|---|")
    for kind, of in times.items():
        low, middle, high = statistics.quantiles(of, n=4) if len(of) > 1 else of * 3
        print(f"| {kind} | {middle * 1e3:.0f} | {low * 1e3:.0f} to {high * 1e3:.0f} | {middle / smallest:.2f} "
              f"| {middle / statistics.median(times['ours']):.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
