"""One malformed input, read under guard: it is taken or refused in a sentence, quickly, and in little memory."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperdreambooth_ext.errors import UserError
from tests.robustness.readers import Reader

# What a reader may take whatever the file claims: code that is loaded, caches, the parser's table of a small header.
ALLOWANCE = 64_000_000
_LINUX = sys.platform == "linux"


class Defect(AssertionError):
    """A reader did what it must not."""


def tried(reader: Reader, content: bytes, path: Path) -> str:
    """ "taken" or "refused". Raises Defect for everything else; the input then lies at `path`."""
    path.write_bytes(content)
    before, started = _start_of_peak(), time.monotonic()
    try:
        with _within(10 * reader.deadline):
            result = reader.read(path)
    except UserError as error:
        if not str(error) or "\n" in str(error)[:-1]:
            raise Defect(f"no sentence: {error!r}") from error
        outcome = "refused"
    except Exception as error:
        raise Defect(f"crash: {error!r}") from error
    else:
        outcome = "taken"
    seconds, grown = time.monotonic() - started, _peak() - before
    if seconds > 5 * reader.deadline:
        raise Defect(f"hang: {seconds:.1f} s")
    if grown > 2 * reader.claim(content) + ALLOWANCE:
        raise Defect(f"memory: {grown / 1e6:.0f} MB for a claim of {reader.claim(content) / 1e6:.1f} MB")
    if outcome == "taken":
        try:
            reader.check(result)
        except Exception as error:
            raise Defect(f"nonsense was taken: {error!r}") from error
    return outcome


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after so long, where the system has alarms."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _start_of_peak() -> int:
    """Forget the highest memory so far, and return what is in use. Linux; elsewhere memory is not watched."""
    if not _LINUX:
        return 0
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    return _peak()


def _peak() -> int:
    if not _LINUX:
        return 0
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
