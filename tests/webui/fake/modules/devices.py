import contextlib

import torch

device = torch.device("cpu")
fp8 = False


def autocast(disable=False):
    return contextlib.nullcontext()
