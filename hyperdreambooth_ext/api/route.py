"""How every route of the API treats a request: who is it, how much does it bring, and a sentence for what is wrong."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from ..errors import UserError
from ..images.photo import MAX_PHOTO_BYTES
from ..jobs.jobs import QueueFull, UnknownJob
from ..texts import plain_text

# A photo in base64, and room for the other values.
MAX_BODY_BYTES = MAX_PHOTO_BYTES * 4 // 3 + 100_000
# Any other request.
MAX_SMALL_BODY_BYTES = 10_000
# So many photos at once: one is up to 27 MB in base64 and ten times that in pixels.
MAX_AT_ONCE = 2


@contextlib.contextmanager
def place_in(gate: threading.Semaphore) -> Iterator[None]:
    """Within this context one place is taken. Raises HTTPException 429 at once when there is none."""
    if not gate.acquire(blocking=False):
        sentence = "Too many requests at once: wait for an answer, then try again."
        raise HTTPException(429, sentence, headers={"Retry-After": "1"})
    try:
        yield
    finally:
        gate.release()


def sentence_route(check_room: Callable[[], None]) -> type[APIRoute]:
    """The routes' class. `check_room` raises UserError where a photo has no use, before it is read."""
    gate = threading.Semaphore(MAX_AT_ONCE)

    class SentenceRoute(APIRoute):
        """Credentials first, then the body, up to its limit (413); a UserError is 400 (404 unknown, 429 queue full)."""

        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()
            # FastAPI reads the whole body before it asks the dependencies: nobody unknown shall make us keep one.
            ask_first = APIRoute(self.path, _allowed, dependencies=self.dependencies).get_route_handler()
            large = self.path.endswith("/personalize")

            async def guarded(request: Request) -> Any:
                try:
                    await ask_first(request)
                    if not large:
                        await _read_body(request, MAX_SMALL_BODY_BYTES)
                        return await handle(request)
                    check_room()
                    with place_in(gate):
                        await _read_body(request, MAX_BODY_BYTES)
                        return await handle(request)
                except HTTPException:
                    await _drain(request)
                    raise
                except UserError as error:
                    await _drain(request)
                    raise HTTPException(_status_code(error), plain_text(str(error))) from error
                except RequestValidationError as error:
                    # FastAPI's own answer repeats what was sent, photo and all.
                    raise HTTPException(422, _sentence(error)) from error
                except OverflowError as error:
                    # pydantic 1 lets a whole number with hundreds of digits through to float().
                    raise HTTPException(422, "The request cannot be used: one of its numbers is too large.") from error

            return guarded

    return SentenceRoute


def _allowed() -> None:
    """What a request asks for that is only asked who it is."""


async def _read_body(request: Request, limit: int) -> None:
    """Read the body in pieces, and no further than the limit; FastAPI finds it where it would have put it."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise HTTPException(413, f"The request is too large: a photo may have {MAX_PHOTO_BYTES // 1_000_000} MB.")
    request._body = bytes(body)


async def _drain(request: Request) -> None:
    """Let a client that still sends finish, so that it reads the answer; nothing of it is kept, and not without end."""
    if getattr(request, "_stream_consumed", False):
        return
    left = MAX_BODY_BYTES
    with contextlib.suppress(ClientDisconnect):
        async for piece in request.stream():
            left -= len(piece)
            if left < 0:
                return


def _sentence(error: RequestValidationError) -> str:
    """Which value is wrong and why, without the value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ())[1:]) or "the body"
    return f"The request cannot be used: {plain_text(where, 100)}: {plain_text(str(first.get('msg', '')), 200)}."


def _status_code(error: UserError) -> int:
    if isinstance(error, UnknownJob):
        return 404
    return 429 if isinstance(error, QueueFull) else 400
