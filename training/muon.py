"""Muon for matrices and convolutions (Jordan et al. 2024, arXiv 2510.19376 for UNets), AdamW for everything else."""

import torch
from torch import nn

from hyperdreambooth_ext.pretrain.processes import Processes

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalized(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrices [..., n, m] whose singular values are all about 1, by Newton-Schulz iterations.

    Each multiplies X by a polynomial P of X Xᵀ, and these commute: so they are run on the smaller Gram matrix alone,
    P X Xᵀ P, and X is multiplied once at the end. For a flattened convolution that is a fifth of the work.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    gram, product = x @ x.mT, None
    for step in range(steps):
        polynomial = (_B * gram).add_(gram @ gram, alpha=_C)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(_A)
        product = polynomial if product is None else polynomial @ product
        if step < steps - 1:
            gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.mT if tall else x


def orthogonalized_in_half(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The same in bfloat16, as Muon's authors do it; on the matrices themselves, since a Gram matrix would lose the
    small singular values. Faster where the processor has instructions for it."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    x = x.float()
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer for a whole network. `lr` is AdamW's; matrices move by `muon_lr` of their own size a step.

    Parameters of two and more dimensions go by Muon, flattened to [out, the rest]; vectors, and matrices that
    `is_adamw` names (embeddings, first and last layers), by AdamW. State lives beside each parameter. Of several
    processes each makes its part of Muon's updates, which are much of the work where batches are small.
    """

    def __init__(
        self, model: nn.Module, lr: float, muon_ratio: float = 2.0, is_adamw=lambda name: False,
        processes: Processes = Processes(), half: bool = False,
    ) -> None:  # fmt: skip
        self.processes = processes
        self._orthogonalized = orthogonalized_in_half if half else orthogonalized
        muon: list[nn.Parameter] = []
        adamw: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (adamw if parameter.ndim < 2 or is_adamw(name) else muon).append(parameter)
        groups = [{"params": muon, "muon": True}, {"params": adamw, "muon": False}]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "muon_ratio": muon_ratio})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]  # noqa: ARG002  (torch's signature)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                self._muon(parameters, group)
            else:
                for parameter in parameters:
                    self._adamw(parameter, parameter.grad, group)

    def _muon(self, parameters: list[nn.Parameter], group: dict) -> None:
        updates = [self._update(parameter) for parameter in parameters]
        self._orthogonalize(updates)
        self.processes.mean(updates)
        lr = group["lr"] * group["muon_ratio"]
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - 0.01 * lr)
            # 0.2·√max(n, m): as large an entry, on average, as AdamW would move.
            scale = 0.2 * max(update.shape) ** 0.5
            parameter.add_(update.view_as(parameter), alpha=-lr * scale * self.processes.count)

    def _update(self, parameter: nn.Parameter) -> torch.Tensor:
        """What this parameter would move by [n, m], not orthogonal yet."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 0.05)
        return gradient.lerp(momentum, 0.95).flatten(1)

    def _orthogonalize(self, updates: list[torch.Tensor]) -> None:
        """All of one shape at once; zeros where another process does it."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, update in enumerate(updates):
            by_shape.setdefault(tuple(update.shape), []).append(place)
        for number, places in enumerate(by_shape.values()):
            # Each shape begins with another process, or the first would get every shape that is there once.
            own = places[(self.processes.rank + number) % self.processes.count :: self.processes.count]
            for place in set(places).difference(own):
                updates[place] = torch.zeros_like(updates[place])
            if own:
                made = self._orthogonalized(torch.stack([updates[place] for place in own])).contiguous()
                for place, update in zip(own, made, strict=True):
                    updates[place] = update

    def _adamw(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step = float(state["step"])
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient.square(), 0.01)
        denominator = (state["square"] / (1 - 0.99**step)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - 0.9**step))
