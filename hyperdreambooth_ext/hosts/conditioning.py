"""SDXL's condition as one tensor, so that all hosts have the same interface."""

import torch
import torch.nn.functional as F


def pack(condition: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    """{crossattn [B, T, W], vector [B, V]} -> [B, T + ceil(V / W), W]: the vector fills the last rows, zeros after it.

    A plain tensor comes back as it is. Gradients flow.
    """
    if isinstance(condition, torch.Tensor):
        return condition
    crossattn, vector = condition["crossattn"], condition["vector"]
    batch, _, width = crossattn.shape
    rows = -(-vector.shape[1] // width)
    padded = F.pad(vector, (0, rows * width - vector.shape[1])).view(batch, rows, width)
    return torch.cat([crossattn, padded.to(crossattn)], dim=1)


def unpack(packed: torch.Tensor, vector_width: int) -> dict[str, torch.Tensor]:
    """The inverse of `pack` for a vector of `vector_width` numbers."""
    rows = -(-vector_width // packed.shape[-1])
    vector = packed[:, -rows:].flatten(1)[:, :vector_width]
    return {"crossattn": packed[:, :-rows], "vector": vector}
