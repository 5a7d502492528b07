"""Pictures as the models take them: RGB uint8 on the one side, float32 in [-1, 1] on the other."""

from collections.abc import Sequence

import numpy as np
import torch


def to_tensor(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """RGB uint8 pictures of one size [H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_picture(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] -> RGB uint8 [H, W, 3]."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
