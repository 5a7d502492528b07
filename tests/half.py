"""bfloat16 on the processor, which only tests use in a WebUI: users have it on graphics cards.

torch 2.1.2's oneDNN writes past its memory in bfloat16's backward on several threads; torch 2.11's does not. On one
thread, which a test can promise for itself and not for a job's thread, or without oneDNN, which is slower, all is well.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hyperdreambooth_ext.pretrain.loop import SAFE_BF16, torch_version


def safe_on_the_processor() -> bool:
    """Whether bfloat16 may be used here as it is."""
    return torch_version() >= SAFE_BF16


@contextmanager
def made_safe() -> Iterator[None]:
    """Without oneDNN where it is not safe, for all threads."""
    with torch.backends.mkldnn.flags(enabled=safe_on_the_processor()):
        yield
