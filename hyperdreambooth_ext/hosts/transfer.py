"""Small tensors on their way to the model's device and back, without waiting for a graphics card."""

from collections.abc import Callable

import torch


def to_device_async(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor`, which lies on the processor, on `device`. From pageable memory a copy would first let a graphics card
    finish all that it has been given."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_cpu_async(value: torch.Tensor) -> Callable[[], float]:
    """The number `value` on its way to the processor; the result waits for it to arrive."""
    if not value.is_cuda:
        return value.item
    copy = torch.empty((), dtype=value.dtype, pin_memory=True)
    copy.copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def arrived() -> float:
        event.synchronize()
        return copy.item()

    return arrived
