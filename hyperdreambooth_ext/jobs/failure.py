"""What the user is told of whatever ended a job or a build."""

import logging

import torch

from ..errors import UserError

_log = logging.getLogger("hyperdreambooth")


def failure_message(error: Exception) -> str:
    """A sentence; what the user cannot act on is on the console in full."""
    if isinstance(error, UserError):
        return str(error)
    _log.error("A job failed", exc_info=error)
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        where = "memory" if isinstance(error, MemoryError) else "graphics card's memory"
        return f"The {where} is full: choose a smaller size or batch, or close other programs."
    return f"It failed with {type(error).__name__} ({error}): see the console for details."
