"""What the tab's buttons do. Every handler answers a UserError with its sentence, in the page."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import UserError
from ..images.face import choose_face
from ..jobs.job import JobStatus
from ..jobs.jobs import Studio, UnknownJob
from ..jobs.library import export
from ..jobs.task import Task
from . import html
from .folder import can_open, open_folder
from .upload import Photo, describe, read_upload

POLL_SECONDS = 0.2
Generate = Callable[[str, int], np.ndarray]
Updates = tuple[Any, ...]


class Handlers:
    """The tab's behavior on one studio; `task_values` makes Task's arguments of the Advanced inputs."""

    def __init__(
        self, studio: Studio, task_values: Callable[[tuple], dict[str, Any]], generate: Generate | None
    ) -> None:  # fmt: skip
        self.studio, self.task_values, self.generate = studio, task_values, generate

    def look(self, file: Any) -> tuple[Photo | None, str, int]:
        """A photo was dropped, or taken away: the photo, what was found in it, and the largest face chosen."""
        if file is None:
            return None, "", 1
        try:
            photo = read_upload(file)
        except UserError as error:
            return None, html.note(str(error), "error"), 1
        return photo, describe(photo, 1), 1

    def choose(self, photo: Photo | None, face: float | None) -> str:
        """Another face of the same photo."""
        return "" if photo is None else describe(photo, int(face or 1))

    def personalize(
        self, photo: Photo | None, face: float | None, name: str, quality: str, *advanced: Any
    ) -> Iterator[Updates]:  # fmt: skip
        """Start a job and follow it."""
        try:
            id = self._submit(photo, int(face or 1), name, quality, advanced)
        except UserError as error:
            yield _refusal(str(error))
            return
        yield from self.follow(id)

    def follow(self, id: str) -> Iterator[Updates]:
        """The page's updates until the job ends. An id that is not known shows the welcome again."""
        if not id:
            yield _idle(html.note(self.studio.backend.unfit(), "warning"))
            return
        seen: JobStatus | None = None
        while True:
            try:
                status = self.studio.job(id)
            except UnknownJob:
                yield _idle("")
                return
            if status != seen:
                yield _shown(status)
            if status.ended:
                return
            seen = status
            time.sleep(POLL_SECONDS)

    def interrupt(self, id: str) -> None:
        """Stop within one step."""
        if id:
            self.studio.interrupt(id)

    def keep(self, id: str) -> Iterator[Updates]:
        """Save what an interrupted job had learned, and follow that."""
        try:
            self.studio.keep(id)
        except UserError as error:
            yield _refusal(str(error))
            return
        yield from self.follow(id)

    def export(self, id: str, overwrite: bool) -> str:
        """The result as an ordinary LoRA."""
        try:
            result = self.studio.job(id).result
            if result is None:
                raise UserError("There is nothing to export yet: personalize first.")
            path = export(result.path.parent, result.name, overwrite)
        except UserError as error:
            return html.note(str(error), "error")
        return html.saved(f"Saved as a LoRA: use it as <lora:{path.stem}:1>.", path)

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

    def _submit(self, photo: Photo | None, face: int, name: str, quality: str, advanced: tuple) -> str:
        if photo is None:
            raise UserError("There is no photo yet: drop one first.")
        choose_face(photo.faces, face)
        values = {"quality": quality, "face": face, **self.task_values(advanced)}
        return self.studio.submit(Task(photo, name or "", **values))

    def _folder(self) -> Path:
        return self.studio.backend.lidb_dir().resolve()


def _shown(status: JobStatus) -> Updates:
    """Job id, progress, result, Personalize, the row of Interrupt and Keep, both, the actions below, the prompt."""
    done = status.result
    return (
        status.id,
        html.progress(status),
        html.result(done) if done else "",
        gr.update(interactive=status.ended),
        gr.update(visible=not status.ended or status.can_keep),
        gr.update(visible=not status.ended),
        gr.update(visible=status.can_keep),
        gr.update(visible=done is not None),
        done.prompt if done else gr.update(),
    )


def _refusal(sentence: str) -> Updates:
    """The sentence, and everything else as it was."""
    same = gr.update()
    return same, html.card(html.note(sentence, "error")), *[same] * 7


def _idle(note: str) -> Updates:
    """The first page. The buttons are as the page was built; a job that was started meanwhile keeps them."""
    same = gr.update()
    return "", note + html.welcome(answered=True), "", *[same] * 6
