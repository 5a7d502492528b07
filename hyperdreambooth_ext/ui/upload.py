"""The photo that was dropped: read, looked at, and the uploaded copy deleted."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ..errors import PhotoError
from ..images.face import MIN_FACE_PIXELS, crop_face
from ..images.photo import MAX_PHOTO_BYTES, Photo, photo_from_bytes
from ..jobs.work import jpeg
from . import html

CROP = 192
_SHOWN_FACES = 8


def read_upload(file: Any) -> Photo:
    """Read what gradio's File component hands over, then delete gradio's copies: photos are not kept.

    Raises PhotoError for what is no photo, or larger than MAX_PHOTO_BYTES.
    """
    path = Path(getattr(file, "name", file))
    copies = [path, Path(getattr(file, "orig_name", None) or path)]
    # The browser names these paths: nothing outside of gradio's own upload folder is read or deleted.
    copies = [copy for copy in copies if copy.resolve().is_relative_to(_upload_folder())]
    if path not in copies:
        raise PhotoError("The photo did not arrive as an upload: drop it again.")
    try:
        if path.stat().st_size > MAX_PHOTO_BYTES:
            raise PhotoError(f"The photo is larger than {MAX_PHOTO_BYTES // 1_000_000} MB: save it smaller, as a JPEG.")
        pixels = photo_from_bytes(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise PhotoError("The photo is no longer there: drop it again.") from None
    finally:
        for copy in copies:
            with contextlib.suppress(OSError):
                copy.unlink()
    return Photo(pixels)


def describe(photo: Photo, number: int) -> str:
    """The faces that were found as HTML, with a warning for none, several, or one that is too small."""
    found = photo.faces
    if not found:
        return html.note(
            "No face was found: use a photo that shows the face from the front, in even light.", "warning"
        )  # fmt: skip
    number = min(max(1, number), len(found))
    crops = [jpeg(crop_face(photo.pixels, face, CROP)) for face in found[:_SHOWN_FACES]]
    sentence = ""
    if found[number - 1].size < MIN_FACE_PIXELS:
        sentence = f"The face is very small: use a photo where it is at least {MIN_FACE_PIXELS} pixels high."
    elif len(found) > 1:
        sentence = "Several faces were found: click the one to learn."
    return html.faces(crops, number) + html.note(sentence, "warning")


def _upload_folder() -> Path:
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()
