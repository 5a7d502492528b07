"""State of modules that must be given back after use."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..lidb.injection import forwards

_RECOMPUTES = ("checkpoint", "use_checkpoint")


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within this context no parameter asks for gradients and all modules evaluate; afterwards each is as it was.

    Recomputation in the backward pass is off too: `ldm` differentiates only what its blocks were given as parameters,
    so the gradients of a LiDB in its hooks would be lost without a word.
    """
    modules = list(modules)
    wanted = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    modes = [(child, child.training) for module in modules for child in module.modules()]
    flags = [(child, name) for child, _ in modes for name in _RECOMPUTES if vars(child).get(name) is True]
    try:
        for child, name in flags:
            setattr(child, name, False)
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        for module in modules:
            module.eval()
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
        for child, training in modes:
            child.training = training
        for child, name in flags:
            setattr(child, name, True)


@contextmanager
def recomputed(kinds: Iterable[type[nn.Module]]) -> Iterator[None]:
    """Within this context modules of these classes keep no activations: the backward pass computes them once more.

    What single modules within them compute instead of their own forward, such as a LiDB, they compute the second time
    too: the backward pass may begin when that has long been given back. Gradients reach it (`use_reentrant=False`).
    """
    originals = [(kind, kind.forward) for kind in kinds]
    try:
        for kind, forward in originals:
            kind.forward = _recomputing(forward)  # type: ignore[method-assign]
        yield
    finally:
        for kind, forward in originals:
            kind.forward = forward  # type: ignore[method-assign]


def _recomputing(forward):
    def recomputing_forward(self, *args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(self, *args, **kwargs)
        now = {module: vars(module)["forward"] for module in self.modules() if "forward" in vars(module)}
        contexts = lambda: (nullcontext(), forwards(now))  # noqa: E731  # as checkpoint wants it
        # Within `frozen` nothing is random; to keep the generator's state would be to wait for a graphics card.
        return checkpoint(
            forward, self, *args, use_reentrant=False, context_fn=contexts, preserve_rng_state=False, **kwargs
        )

    return recomputing_forward
