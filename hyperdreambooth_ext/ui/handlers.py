"""What the tab's buttons do. Every handler answers a UserError with its sentence, in the page."""

import contextlib
import io
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import UserError
from ..images.photo import Photo, load_photo
from ..jobs.jobs import Studio, UnknownJob
from ..jobs.library import entries
from ..jobs.task import Task
from ..personalize.options import QUALITIES, PersonalizeOptions
from ..shipped import SAMPLE_PHOTO
from . import html
from .folder import can_open, open_folder
from .page import Page, changes, idle, refused, shown
from .upload import Faces, chosen, describe, faces_of, read_upload

POLL_SECONDS = 0.2
Generate = Callable[[str, int], np.ndarray]


class Handlers:
    """The tab's behavior on one studio; `task_values` makes Task's arguments of the Advanced inputs."""

    def __init__(
        self, studio: Studio, task_values: Callable[[tuple], dict[str, Any]], generate: Generate | None
    ) -> None:  # fmt: skip
        self.studio, self.task_values, self.generate = studio, task_values, generate

    def look(self, file: Any) -> tuple[None, Faces | None, str, int, str, Any]:
        """A photo was dropped: an empty place for the next, the faces, what is said of them, the largest chosen, and no
        refusal any more."""
        cleared = "", gr.update(visible=False)
        try:
            faces = read_upload(file)
        except UserError as error:
            return None, None, html.note(str(error), "error"), 1, *cleared
        return None, faces, describe(faces, 1), 1, *cleared

    def choose(self, faces: Faces | None, face: float | None) -> str:
        """Another face of the same photo."""
        return "" if faces is None else describe(faces, int(face or 1))

    def try_now(self) -> Iterator[tuple]:
        """The built-in model and the sample photo: the faces, what is said of them, the chosen one, a name that is
        free, the quickest quality, and that the model is loading. Raises gradio's Error, so that nothing follows."""
        form = (gr.update(),) * 5
        yield *form, html.loading()
        try:
            self.studio.backend.load_bundled()
        except UserError as error:
            yield *form, html.welcome()
            raise gr.Error(str(error)) from error
        faces = faces_of(Photo(load_photo(SAMPLE_PHOTO)))
        taken = {entry.name for entry in entries(self._folder())}
        name = next(name for name in (f"sample{number or ''}" for number in count()) if name not in taken)
        yield faces, describe(faces, 1), 1, name, QUALITIES[0], gr.update()

    def can_try(self) -> Any:
        """Show or hide the button for it."""
        return gr.update(visible=self.studio.backend.can_try())

    def forecast(self, quality: str, *advanced: Any) -> str:
        """The line below the form."""
        try:
            options = PersonalizeOptions(**{"quality": quality, **self.task_values(advanced)})
            return html.forecast(self.studio.forecast(options))
        except UserError as error:
            return html.note(str(error), "warning")

    def personalize(
        self, faces: Faces | None, face: float | None, name: str, quality: str, *advanced: Any
    ) -> Iterator[Page]:  # fmt: skip
        """Start a job and follow it."""
        values = {"quality": quality, **self.task_values(advanced)}
        yield from self._begun(lambda: self._submit(faces, int(face or 1), name, values))

    def replace(
        self, faces: Faces | None, face: float | None, name: str, quality: str, *advanced: Any
    ) -> Iterator[Page]:  # fmt: skip
        """The same, instead of the LiDB of that name."""
        values = {"quality": quality, **self.task_values(advanced), "overwrite": True}
        yield from self._begun(lambda: self._submit(faces, int(face or 1), name, values))

    def keep(self, id: str) -> Iterator[Page]:
        """Save what an interrupted job had learned, and follow that."""
        yield from self._begun(lambda: self.studio.keep(id).id)

    def resume(self, id: str) -> Iterator[Page]:
        """Learn on where it was interrupted, and follow that."""
        yield from self._begun(lambda: self.studio.resume(id).id)

    def _begun(self, begin: Callable[[], str]) -> Iterator[Page]:
        try:
            id = begin()
        except UserError as error:
            yield refused(error)
            return
        yield from self.follow(id)

    def follow(self, id: str) -> Iterator[Page]:
        """The page's updates until the job ends. An id that is not known shows the welcome again."""
        if not id:
            yield idle(self.studio.backend.unfit())
            return
        try:
            for status, seen in changes(lambda: self.studio.job(id), lambda status: status.ended, POLL_SECONDS):
                yield shown(status, seen)
        except UnknownJob:
            yield idle()

    def interrupt(self, id: str) -> None:
        """Stop within one step; a job that is not known any more has stopped."""
        with contextlib.suppress(UnknownJob):
            self.studio.interrupt(id)

    def export(self, id: str, overwrite: bool) -> str:
        """Write the job's LiDB as an ordinary LoRA beside it."""
        try:
            result = self.studio.job(id).result
            if result is None:
                raise UserError("There is nothing to export yet: personalize first.")
            return exported(self.studio, result.path.parent, result.name, overwrite)
        except UserError as error:
            return html.note(str(error), "error")

    def open_folder(self, request: gr.Request) -> str:
        """Show the LiDBs' folder, to somebody at this machine."""
        try:
            if not can_open(request):
                raise UserError(f"The folder can be opened only on the machine itself: {self._folder()}.")
            open_folder(self._folder())
        except UserError as error:
            return html.note(str(error), "error")
        return ""

    def can_open(self, request: gr.Request) -> Any:
        """Show or hide the button for it."""
        return gr.update(visible=can_open(request))

    def sample(self, prompt: str, seed: float | None) -> str:
        """One picture of a prompt with tags; only where the tab has its own Generate."""
        assert self.generate is not None
        try:
            if not (prompt or "").strip():
                raise UserError("The prompt is empty: write what the picture shows.")
            pixels = self.generate(prompt, int(seed or 0))
        except UserError as error:
            return html.note(str(error), "error")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return f'<div class="hdb_pictures hdb_one">{html.picture(buffer.getvalue(), prompt, kind="png")}</div>'

    def _submit(self, faces: Faces | None, face: int, name: str, values: dict[str, Any]) -> str:
        if faces is None:
            raise UserError("There is no photo yet: drop one first.")
        return self.studio.submit(Task(chosen(faces, face), name or "", **values))

    def _folder(self) -> Path:
        return self.studio.backend.lidb_dir().resolve()


def exported(studio: Studio, folder: Path, name: str, overwrite: bool = False) -> str:
    """Write a LiDB as a LoRA, and what is said of it. Raises UserError."""
    path = studio.export(folder, name, overwrite)
    return html.saved(f"Saved as a LoRA: use it as <lora:{path.stem}:1>.", path)
