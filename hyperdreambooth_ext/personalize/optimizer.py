"""How far a step goes, found by trying.

A rate that suits one network overwrites another, since AdamW moves every number by about the rate, however large the
weights are and however much the model's predictions depend on them. So steps are measured in the layer's own weights,
and the one that lowers the loss most is looked for: that depends on no network's scale.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ..errors import TrainingError

TRIES = 14


class ScaledAdamW:
    """AdamW without decay, of which each row of `parameters` takes as many times the step as `scales` says, [rows, 1]
    beside each. Nothing here waits for the device, and a graphics card can record it."""

    def __init__(self, parameters: Sequence[torch.Tensor], scales: Sequence[torch.Tensor], lr: float) -> None:
        self.parameters, self._scales = parameters, scales
        self._on_gpu = parameters[0].is_cuda
        # On a graphics card the rate lies there too: a recorded step reads it, and one kernel moves all parameters.
        rate = torch.tensor(lr, device=parameters[0].device) if self._on_gpu else lr
        self._adamw = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), eps=1e-12, weight_decay=0.0, fused=self._on_gpu or None,
            capturable=self._on_gpu,
        )  # fmt: skip

    def set_lr(self, lr: float) -> None:
        """The rate of the steps to come."""
        for group in self._adamw.param_groups:
            if self._on_gpu:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        before = [parameter.detach().clone() for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adamw.step()
        for parameter, old, scale in zip(self.parameters, before, self._scales, strict=True):
            parameter.copy_(torch.lerp(old, parameter, scale))


def longest_gain(loss_after: Callable[[float], float], first: float) -> float:
    """The step whose `loss_after` is lowest: from `first` on doubled, or halved, while it falls, then at the lowest
    point of the parabola through the last three.

    Raises TrainingError when the loss is no number at any length.
    """

    def loss_at(doublings: int) -> float:
        loss = loss_after(first * 2.0**doublings)
        return loss if math.isfinite(loss) else math.inf

    losses = {0: loss_at(0), 1: loss_at(1)}
    way = 1 if losses[1] < losses[0] else -1
    best = max(0, way)
    for _ in range(TRIES - len(losses)):
        losses[best + way] = loss_at(best + way)
        if losses[best + way] >= losses[best] < math.inf:
            break
        best += way
    if losses[best] == math.inf:
        raise TrainingError("The checkpoint's predictions are not numbers: load the model in full precision.")
    before, lowest, after = (losses.get(n, math.inf) for n in (best - 1, best, best + 1))
    bend = before - 2 * lowest + after
    return first * 2.0 ** (best + (0.5 * (before - after) / bend if 0 < bend < math.inf else 0))


def weight_norms(linears: Mapping[str, nn.Linear]) -> dict[str, float]:
    """layer key -> ‖W‖, Frobenius."""
    norms = [torch.linalg.vector_norm(linear.weight.detach().float()) for linear in linears.values()]
    return dict(zip(linears, torch.stack(norms).tolist(), strict=True))


def relative_steps(norms: Mapping[str, float]) -> dict[str, float]:
    """layer key -> √‖W‖, with a geometric mean of 1: as many times the rate do its factors A and B move.

    Then ΔW = A·B moves in proportion to W: a rescaling that changes no prediction (queries by c, keys by 1/c) changes
    nothing that is learned.
    """
    roots = torch.tensor([max(norm, 1e-6) for norm in norms.values()]).sqrt()
    return dict(zip(norms, (roots / roots.log().mean().exp()).tolist(), strict=True))
