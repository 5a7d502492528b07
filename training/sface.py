"""The face recogniser SFace as a differentiable network: a teacher for training, never part of the product."""

from pathlib import Path

from torch import nn


def load_sface(onnx_file: Path) -> nn.Module:
    """SFace from OpenCV's model zoo (Apache-2.0): RGB float32 [B, 3, 112, 112] in 0..255 -> features [B, 128]."""
    import onnx
    from onnx2torch import convert

    network = convert(onnx.load(onnx_file)).eval()
    return network.requires_grad_(False)
