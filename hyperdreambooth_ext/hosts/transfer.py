"""Small tensors on their way to the model's device."""

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor`, which lies on the processor, on `device`. A graphics card is not waited for: from pageable memory a
    copy would first let it finish all that it has been given."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
