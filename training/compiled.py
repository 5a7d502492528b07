"""C++ beside this file, compiled at its first use, for this very machine, which takes some seconds."""

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

TORCH = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
"""Where torch's own product of matrices, `sgemm_`, is found on Linux."""


@cache
def can_compile() -> bool:
    """Whether there is a compiler, and torch's library is what the sources expect."""
    return shutil.which("c++") is not None and TORCH.exists() and hasattr(ctypes.CDLL(str(TORCH)), "sgemm_")


@cache
def compiled(name: str) -> ctypes.CDLL:
    """The functions of NAME.cpp."""
    source = Path(__file__).with_name(f"{name}.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{name}.so"
        # Sums may be taken in any order: the transforms' zeros and ones then cost nothing. OpenMP's library is the one
        # that torch has loaded already, so both share their threads.
        flags = ["-std=c++17", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC", "-shared"]
        subprocess.run(["c++", *flags, str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def pointers(tensors) -> list[ctypes.c_void_p]:
    """Where the tensors' numbers begin."""
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
