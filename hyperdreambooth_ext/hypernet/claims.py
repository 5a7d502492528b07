"""Whether a hypernetwork file holds what its configuration says, asked before anything of that size is made.

A few bytes of configuration can describe a network of terabytes: so its tensors' shapes are worked out without their
numbers, and held against the file.
"""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .config import HypernetworkConfig
from .encoder import backbone
from .hypernetwork import WeightDecoder
from .latent_identity import LatentIdentityEnsemble

_MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full})
# Methods of tensors and functions of torch.nn.init, which some versions hand to a mode as one call.
_FILLERS = frozenset({"normal_", "uniform_", "bernoulli_", "kaiming_uniform_", "kaiming_normal_"})
_NOT_RANDOM = {torch.rand: torch.zeros, torch.randn: torch.zeros}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Counters of the training, which nothing needs afterwards.
_OPTIONAL = "num_batches_tracked"


class Unfilled(TorchFunctionMode):
    """Within this context new weights take no random numbers: they are overwritten, or asked for their shapes alone.

    With "meta" as `device` they have a shape and no memory; tensors made of given numbers stay as they are.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ARG002
        kwargs = dict(kwargs or {})
        if func.__name__ in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs["device"] = self._device
        return _NOT_RANDOM.get(func, func)(*args, **kwargs)


def check_claims(config: HypernetworkConfig, tensors: dict[str, torch.Tensor]) -> None:
    """Raises ValueError unless `tensors` are those of a network of this configuration, in finite numbers."""
    if any(tensor.dtype not in _DTYPES for tensor in tensors.values()):
        raise ValueError("its tensors are no floating-point numbers")
    features_in = tensors.get("decoder.features_in.weight")
    if features_in is None or features_in.ndim != 2:
        raise ValueError("it has no layer that takes the features")
    claimed = _shapes(config, channels=features_in.shape[1])
    found = {name: tensor.shape for name, tensor in tensors.items()}
    for name, shape in claimed.items():
        if name in found and found[name] != shape or name not in found and not name.endswith(_OPTIONAL):
            raise ValueError(f"{name} is not as its configuration says")
    if found.keys() - claimed.keys():
        raise ValueError("it holds tensors that its configuration does not know")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("it holds numbers that are none")


def _shapes(config: HypernetworkConfig, channels: int) -> dict[str, torch.Size]:
    with Unfilled("meta"):
        parts: dict[str, nn.Module] = {"decoder.": WeightDecoder(config, channels)}
        if config.identity_nets:
            parts["identity_net."] = LatentIdentityEnsemble.untrained(config.identity_nets)
        if config.encoder_bundled:
            parts["encoder.backbone."] = backbone(config.encoder, pretrained=False, device="meta")
    return {prefix + name: value.shape for prefix, part in parts.items() for name, value in part.state_dict().items()}
