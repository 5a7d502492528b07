"""All that a user could notice of a model and of torch: equal before and after, or something was not given back."""

import hashlib
import os
import random
import signal
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as nn_module

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)  # fmt: skip


def snapshot(*models: nn.Module) -> dict[str, Any]:
    """Every parameter, buffer and module of `models`, and every setting of torch for the whole process."""
    seen: dict[str, Any] = settings()
    for number, model in enumerate(models):
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            seen[f"{number} {name}"] = (
                bits(tensor), tensor.dtype, tensor.device, tensor.requires_grad, tensor.grad is None, tensor.data_ptr(),
            )  # fmt: skip
        for name, module in model.named_modules():
            own = vars(module)
            seen[f"{number} module {name}"] = (
                type(module), type(module).forward, own.get("forward"), module.training, own.get("checkpoint"),
                own.get("gradient_checkpointing"), [list(own.get(hooks, ())) for hooks in _HOOKS],
            )  # fmt: skip
    return seen


def bits(tensor: torch.Tensor) -> str:
    """A hash of a tensor's bytes, whatever its dtype."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(flat, digest_size=16).hexdigest()


def settings() -> dict[str, Any]:
    """What one thread or the whole process has set: gradients, precision, threads, random states, hooks, signals."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "matmul": (matmul.allow_tf32, torch.get_float32_matmul_precision()),
        "attention": (
            torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "autocast": (torch.is_autocast_enabled(), torch.is_autocast_cpu_enabled(), torch.get_autocast_gpu_dtype()),
        "torch's random state": bits(torch.get_rng_state()),
        "Python's random state": hash(random.getstate()),
        "numpy's random state": hash(np.random.get_state()[1].tobytes()),  # noqa: NPY002  # the global one is meant
        "hooks": [list(vars(nn_module)[f"_global_{kind}_hooks"]) for kind in ("forward", "forward_pre", "backward")],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "warnings": len(warnings.filters),
    }  # fmt: skip


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what is not the same."""
    return [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]


def parts(names: Iterable[str], host: Any) -> list[nn.Module]:
    """The modules of a host by attribute."""
    return [getattr(host, name) for name in names]
