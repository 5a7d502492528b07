"""Group normalization with SiLU after it in one go (`group_norm.cpp`), for which torch needs several operations that
each read and write whole pictures."""

import ctypes

import torch
import torch.nn.functional as F
from ldm.modules.diffusionmodules.model import ResnetBlock
from torch import nn

from .compiled import can_compile, compiled, pointers

LAST = torch.channels_last
DTYPES = (torch.float32, torch.bfloat16)


class _Normalized(torch.autograd.Function):
    """Of pictures [N, C, H, W] with channels last, float32 or bfloat16; weight and bias are float32."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps, silu):
        count, channels, height, width = x.shape
        ctx.sizes = [ctypes.c_int64(size) for size in (count, height * width, channels, groups)]
        ctx.silu, ctx.half = silu, x.dtype == torch.bfloat16
        result, moments = torch.empty_like(x, memory_format=LAST), weight.new_empty(count, groups, 2)
        places = pointers([x, weight, bias, result, moments])
        compiled("group_norm").normalize(*places, *ctx.sizes, ctypes.c_float(eps), silu, ctx.half)
        ctx.save_for_backward(x, moments, weight, bias)
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, moments, weight, bias = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=LAST)
        result = torch.empty_like(x, memory_format=LAST)
        of_weight, of_bias = (weight.new_empty(len(x), len(weight)) for _ in range(2))
        places = pointers([gradient, x, moments, weight, bias, result, of_weight, of_bias])
        compiled("group_norm").normalize_backward(*places, *ctx.sizes, ctx.silu, ctx.half)
        return result, of_weight.sum(0), of_bias.sum(0), None, None, None


class _GroupNorm(nn.GroupNorm):
    silu = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.device.type == "cpu" and input.ndim == 4 and input.dtype in DTYPES:
            x = input.contiguous(memory_format=LAST)
            return _Normalized.apply(x, self.weight, self.bias, self.num_groups, self.eps, self.silu)
        # In float32, as in `ldm`.
        normal = super().forward(input.float()).to(input.dtype)
        return F.silu(normal) if self.silu else normal


class _ResnetBlock(ResnetBlock):
    """The autoencoder's block, whose normalizations have their SiLU with them; it has no time."""

    def forward(self, x: torch.Tensor, temb: None) -> torch.Tensor:  # noqa: ARG002  (ldm's signature)
        h = self.conv2(self.dropout(self.norm2(self.conv1(self.norm1(x)))))
        if self.in_channels != self.out_channels:
            x = self.conv_shortcut(x) if self.use_conv_shortcut else self.nin_shortcut(x)
        return x + h


def speed_up_group_norms(model: nn.Module) -> None:
    """Give every group normalization of `model`, of `ldm`'s UNet or autoencoder, the short way; names stay, and results
    but for rounding."""
    if not can_compile():
        print("Trainings take longer than they could: there is no C++ compiler, or torch has another BLAS.")
        return
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = _GroupNorm
    for module in list(model.modules()):
        if type(module) is ResnetBlock:
            module.__class__ = _ResnetBlock
            _append_silu(module.norm1)
            _append_silu(module.norm2)
        if isinstance(module, nn.Sequential) and [type(part) for part in module[:2]] == [_GroupNorm, nn.SiLU]:
            _append_silu(module[0])
            module[1] = nn.Identity()


def _append_silu(norm: nn.Module) -> None:
    assert isinstance(norm, nn.GroupNorm)
    norm.__class__ = _GroupNorm
    norm.silu = True  # type: ignore[assignment]
