"""The face recognizer SFace as a differentiable network: a teacher for training, never part of the product."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 112
# Where SFace wants eyes, nose and mouth corners in its square of 112 pixels (OpenCV's `FaceRecognizerSF.alignCrop`).
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


class SFace(nn.Module):
    """SFace from OpenCV's model zoo (Apache-2.0), frozen: pictures [B, 3, H, W] in [-1, 1] and five landmarks each
    [B, 5, 2], in pixels, -> unit vectors [B, 128]. Gradients flow into the pictures."""

    def __init__(self, onnx_file: Path) -> None:
        super().__init__()
        import onnx
        from onnx2torch import convert

        self.network = convert(onnx.load(onnx_file)).eval().requires_grad_(False)
        self.register_buffer("template", torch.tensor(TEMPLATE))

    def forward(self, pictures: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.network((self.aligned(pictures, landmarks) + 1) * 127.5).float(), dim=-1)

    def aligned(self, pictures: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """The squares [B, 3, 112, 112] that SFace was trained on."""
        matrices = similarity(self.template.expand_as(landmarks), landmarks)
        size = pictures.new_tensor([pictures.shape[-1], pictures.shape[-2]])
        # affine_grid's pixels are -1 at the first one's outer edge and 1 at the last one's.
        ours = torch.eye(3, device=pictures.device).repeat(len(pictures), 1, 1)
        ours[:, :2] = matrices
        inwards = torch.tensor([[SIDE / 2, 0, (SIDE - 1) / 2], [0, SIDE / 2, (SIDE - 1) / 2], [0, 0, 1]]).to(ours)
        outwards = torch.eye(3, device=ours.device)
        outwards[0, 0], outwards[1, 1] = 2 / size
        outwards[:2, 2] = 1 / size - 1
        theta = (outwards @ ours @ inwards)[:, :2]
        grid = F.affine_grid(theta, [len(pictures), 3, SIDE, SIDE], align_corners=False)
        return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def similarity(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The similarity transforms [B, 2, 3] that bring points [B, n, 2] nearest to others, in least squares."""
    a, b = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    x, y = source - a, target - b
    size = x.square().sum((1, 2))
    cos = (x * y).sum((1, 2)) / size
    sin = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / size
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return torch.cat([rotation, b.mT - rotation @ a.mT], dim=-1)
