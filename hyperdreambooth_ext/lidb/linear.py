"""A frozen linear layer with a low-rank change, forward and backward, at next to no cost beyond the layer's own.

    y = x (W + up · down)ᵀ + bias

Autograd's own way (the layer, two thin products, a sum, and their backward) reads and writes the activations many times
more than it computes. Here the change is added to the weight once where that is the smaller matrix, and what remains
for the gradients of `up` and `down` are four products with matrices of `rank` rows, laid out so that BLAS reads the
activations along memory.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def pays_to_merge(weight: torch.Tensor, rows: int) -> bool:
    """Whether to add the change to the weight rather than to the layer's output for `rows` inputs.

    It does where the weight is the smaller of the two; never in 16 bits, which would round away most of the change.
    """
    return weight.dtype == torch.float32 and weight.numel() <= rows * sum(weight.shape)


class ChangedLinear(torch.autograd.Function):
    """x [..., in], weight [out, in] and bias [out] or None (frozen), up_t [rank, out], down [rank, in] -> [..., out].

    All of one dtype, on one device. Gradients flow to x, up_t and down; never to weight and bias.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, up_t, down):
        flat = x.reshape(-1, x.shape[-1])
        thin = flat @ down.mT
        ctx.merged = pays_to_merge(weight, len(flat))
        if ctx.merged:
            weight = torch.addmm(weight, up_t.mT, down)
            output = F.linear(flat, weight, bias)
        else:
            output = F.linear(flat, weight, bias).addmm_(thin, up_t)
        ctx.save_for_backward(flat, thin, weight, up_t, down)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        flat, thin, weight, up_t, down = ctx.saved_tensors
        to_x, _, _, to_up, to_down = ctx.needs_input_grad
        shape = grad_output.shape[:-1]
        grad_output = grad_output.reshape(-1, grad_output.shape[-1])
        grad_thin = grad_output @ up_t.mT
        grad_x = grad_output @ weight if to_x else None
        if grad_x is not None:
            grad_x = (grad_x if ctx.merged else grad_x.addmm_(grad_thin, down)).view(*shape, -1)
        grad_up = thin.mT @ grad_output if to_up else None
        grad_down = grad_thin.mT @ flat if to_down else None
        return grad_x, None, None, grad_up, grad_down
