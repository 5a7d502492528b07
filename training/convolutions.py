"""Convolutions that take less time on a processor: 3 x 3 by Winograd's way (`winograd.cpp`), 1 x 1 as products of
matrices. Pictures go from one to the next with their channels last.

It is meant for float32 in processes of one thread each (`checkpoint.py`): of several threads only the products make
use, and in half precision torch's own are faster.
"""

import ctypes
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from .compiled import TORCH, can_compile, compiled, pointers

M = TypeVar("M", bound=nn.Module)
TILES = (4, 3)
"""The sides of the tiles that results are made in: the first that divides height and width."""
LANES = 8
"""So many channels are worked on at a time."""


def _call(name: str, tensors: list[torch.Tensor], pictures: torch.Tensor, weight: torch.Tensor, tile: int) -> None:
    """A function of winograd.cpp, with float32 tensors without gaps; the last of them is written."""
    sgemm = ctypes.cast(ctypes.CDLL(str(TORCH)).sgemm_, ctypes.c_void_p)
    sizes = [ctypes.c_int64(size) for size in (*pictures.shape[:3], weight.shape[1], weight.shape[0])]
    getattr(compiled("winograd"), name)(sgemm, *pointers(tensors), *sizes, tile)


class _Winograd(torch.autograd.Function):
    """A convolution with padding 1 of pictures [N, H, W, C], all float32 on the processor and without gaps."""

    @staticmethod
    def forward(ctx, pictures, weight, bias, tile):
        ctx.save_for_backward(pictures, weight)
        ctx.tile = tile
        result = pictures.new_empty(*pictures.shape[:3], len(weight))
        _call("convolve", [pictures, weight, bias, result], pictures, weight, tile)
        return result

    @staticmethod
    def backward(ctx, gradient):
        (pictures, weight), gradient = ctx.saved_tensors, gradient.contiguous()
        of_pictures = of_weight = None
        if ctx.needs_input_grad[0]:
            of_pictures = torch.empty_like(pictures)
            _call("input_gradient", [gradient, weight, of_pictures], pictures, weight, ctx.tile)
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(weight)
            _call("weight_gradient", [pictures, gradient, of_weight], pictures, weight, ctx.tile)
        of_bias = gradient.sum((0, 1, 2)) if ctx.needs_input_grad[2] else None
        return of_pictures, of_weight, of_bias, None


class _Convolution(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.device.type != "cpu" or input.dtype != torch.float32:
            return super().forward(input)
        last = input.permute(0, 2, 3, 1)
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            return F.linear(last, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if tile := self._tile(*input.shape[2:]):
            return _Winograd.apply(last.contiguous(), self.weight.contiguous(), self.bias, tile).permute(0, 3, 1, 2)
        return super().forward(input.contiguous(memory_format=torch.channels_last))

    def _tile(self, height: int, width: int) -> int | None:
        plain = (self.kernel_size, self.stride, self.padding, self.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        if not plain or self.groups > 1 or self.bias is None or self.in_channels % LANES or self.out_channels % LANES:
            return None
        return next((tile for tile in TILES if height % tile == width % tile == 0), None)


def with_channels_last(model: M) -> M:
    """`model`, its weights in the order that is fastest in half precision."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def speed_up_convolutions(model: nn.Module) -> None:
    """Give every convolution of `model` the faster way; names stay, and results but for rounding (1e-5)."""
    if not can_compile():
        print("Convolutions take longer than they could: there is no C++ compiler, or torch has another BLAS.")
        return
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = _Convolution
