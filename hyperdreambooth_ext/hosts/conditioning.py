"""SDXL's condition as one tensor, so that all hosts have the same interface."""

import math

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


def size_ids(latents: torch.Tensor) -> torch.Tensor:
    """SDXL's micro-conditioning for pictures of this size, float32 [B, 6], as diffusers makes it by default: original
    height and width, top and left of the crop, target height and width, in pixels."""
    # By slices: what is read from the processor could not be recorded in a CUDA graph.
    ids = torch.zeros(len(latents), 6, device=latents.device)
    ids[:, 0::4] = latents.shape[-2] * 8
    ids[:, 1::4] = latents.shape[-1] * 8
    return ids


def embedded_sizes(latents: torch.Tensor) -> torch.Tensor:
    """`size_ids` as `sgm` embeds them (ConcatTimestepEmbedderND): the last numbers of SDXL's vector, [B, 6 * 256]."""
    frequencies = torch.exp(torch.arange(128, device=latents.device) * (-math.log(10_000) / 128))
    angles = size_ids(latents)[:, :, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=2).flatten(1)
