"""Group normalization with a short backward pass: torch's own takes three times as long on a processor."""

import torch
from torch import nn


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        count, channels = x.shape[:2]
        places = x[0, 0].numel()
        output, mean, scale = torch.native_group_norm(x, weight, bias, count, channels, places, groups, eps)
        ctx.save_for_backward(x, mean[..., None], scale[..., None], weight)
        return output

    @staticmethod
    def backward(ctx, gradient):
        x, mean, scale, weight = ctx.saved_tensors
        grouped = (len(x), mean.shape[1], -1)
        normal = (x.reshape(grouped) - mean) * scale
        by_channel = gradient * normal.view(x.shape)
        weighed = (gradient * weight.view(1, -1, 1, 1)).reshape(grouped)
        along = normal * (normal * weighed).mean(-1, keepdim=True)
        result = (weighed - weighed.mean(-1, keepdim=True) - along) * scale
        return result.view(x.shape), by_channel.sum((0, 2, 3)), gradient.sum((0, 2, 3)), None, None


class _GroupNorm(nn.GroupNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # With channels last torch's own is as fast, and the pictures need not be copied.
        last = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
        if input.device.type != "cpu" or input.ndim != 4 or last:
            return super().forward(input)
        return _Normalized.apply(input.contiguous(), self.weight, self.bias, self.num_groups, self.eps)


def speed_up_group_norms(model: nn.Module) -> None:
    """Give every group normalization of `model` the short backward pass; names and results stay."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = _GroupNorm
