"""How many requests may bring something large at once: a flood is refused before it costs memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

# A photo is up to 27 MB in base64 and ten times that in pixels.
MAX_AT_ONCE = 2


class Gate:
    """Lets so many in at a time and turns the others away at once. From any thread."""

    def __init__(self, most: int = MAX_AT_ONCE) -> None:
        self._most, self._inside, self._lock = most, 0, threading.Lock()

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Within this context one place is taken. Raises HTTPException 429 when there is none."""
        with self._lock:
            if self._inside >= self._most:
                raise HTTPException(
                    429, "Too many requests at once: wait for an answer, then try again.", headers={"Retry-After": "1"}
                )
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
