"""How every route of the API treats a request: no body without end, and a sentence for what the user can act on."""

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute

from ..errors import UserError
from ..personalize.photo import MAX_PHOTO_BYTES
from ..service.jobs import QueueFull, UnknownJob

# A photo in base64, and room for the other values.
MAX_BODY_BYTES = MAX_PHOTO_BYTES * 4 // 3 + 100_000


class SentenceRoute(APIRoute):
    """Refuses bodies above MAX_BODY_BYTES with 413; answers a UserError with 400 (404 unknown, 429 queue full)."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Any:
            await _read_body(request)
            try:
                return await handle(request)
            except UserError as error:
                raise HTTPException(_status_code(error), str(error)) from error

        return guarded


async def _read_body(request: Request) -> None:
    """Read the body in pieces, and no further than the limit; FastAPI finds it where it would have put it."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"The request is too large: a photo may have {MAX_PHOTO_BYTES // 1_000_000} MB.")
    request._body = bytes(body)


def _status_code(error: UserError) -> int:
    if isinstance(error, UnknownJob):
        return 404
    return 429 if isinstance(error, QueueFull) else 400
