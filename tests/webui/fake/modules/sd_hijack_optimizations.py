import torch


def scaled_dot_product_attention_forward(self, x, context=None, mask=None, **kwargs):
    """On the real `ldm` CrossAttention."""
    context = x if context is None else context
    q, k, v = (
        t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for t in (self.to_q(x), self.to_k(context), self.to_v(context))
    )
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return self.to_out(out.transpose(1, 2).flatten(-2))
