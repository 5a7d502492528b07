import threading
from collections import deque


class FIFOLock:
    """Lets the waiting in by turn, and shows who waits."""

    def __init__(self):
        self._lock = threading.Lock()
        self._pending_threads = deque()

    def acquire(self, blocking=True):
        event = threading.Event()
        if self._lock.acquire(blocking=False):
            return True
        if not blocking:
            return False
        self._pending_threads.append(event)
        event.wait()
        return self._lock.acquire()

    def release(self):
        if self._pending_threads:
            self._pending_threads.popleft().set()
        self._lock.release()

    def locked(self):
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, t, v, tb):
        self.release()
