"""The photo that was dropped: read, looked at, and the uploaded copy deleted."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ..errors import PhotoError
from ..images.face import choose_face, crop_face
from ..images.photo import Photo, check_photo_bytes, photo_from_bytes
from ..images.sheet import jpeg
from . import html

CROP = 192
_SHOWN_FACES = 8


Faces = tuple[Photo, ...]


def read_upload(file: Any) -> Faces:
    """Read what gradio's File component hands over, then delete gradio's copies: photos are not kept.

    What is returned are the largest faces with their surroundings. Raises PhotoError for what is no photo or too
    large.
    """
    path = Path(getattr(file, "name", file))
    copies = [path, Path(getattr(file, "orig_name", None) or path)]
    # The browser names these paths: nothing outside of gradio's own upload folder is read or deleted.
    copies = [copy for copy in copies if copy.resolve().is_relative_to(_upload_folder())]
    if path not in copies:
        raise PhotoError("The photo did not arrive as an upload: drop it again.")
    try:
        check_photo_bytes(path.stat().st_size)
        pixels = photo_from_bytes(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise PhotoError("The photo is no longer there: drop it again.") from None
    finally:
        for copy in copies:
            with contextlib.suppress(OSError):
                copy.unlink()
    return faces_of(Photo(pixels))


def faces_of(photo: Photo) -> Faces:
    """The largest faces of a photo, each with its surroundings alone."""
    return tuple(photo.around(face) for face in photo.faces[:_SHOWN_FACES])


def chosen(faces: Faces, number: int) -> Photo:
    """The face of that number, counted from the largest. Raises PhotoError as `choose_face` does."""
    choose_face([photo.faces[0] for photo in faces], number)
    return faces[number - 1]


def describe(faces: Faces, number: int) -> str:
    """The faces that were found as HTML, with a warning for none, several, or one that is too small."""
    number = min(max(1, number), max(1, len(faces)))
    crops = [jpeg(crop_face(photo.pixels, photo.faces[0], CROP)) for photo in faces]
    sentence = "Several faces were found: click the one to learn." if len(faces) > 1 else ""
    try:
        chosen(faces, number)
    except PhotoError as error:
        sentence = str(error)
    return (html.faces(crops, number) if crops else "") + html.note(sentence, "warning")


def _upload_folder() -> Path:
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()
