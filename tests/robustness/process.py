"""What the system says about a process: memory in use, open files, threads. Linux, macOS and Windows, by psutil."""

import gc
import sys

import psutil


def resident_megabytes() -> float:
    """Memory that this process has now."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def open_handles() -> int:
    """Files, sockets and pipes that this process holds."""
    process = psutil.Process()
    return process.num_handles() if sys.platform == "win32" else process.num_fds()


def threads() -> int:
    """Threads that this process has."""
    return psutil.Process().num_threads()
