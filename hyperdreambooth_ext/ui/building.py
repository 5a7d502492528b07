"""The sub-tab "Build hypernetwork": how many faces, how much time, start, pause, resume."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..errors import UserError
from ..jobs.building import Builder, BuildStatus
from . import build_html, html

POLL_SECONDS = 0.5
_QUIET = {"show_progress": "hidden"}


class BuildPanel:
    """The sub-tab's components, wired to a builder. Made within a gradio layout."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                faces = gr.Number(1000, label="Faces", precision=0, elem_id="hdb_build_faces")
                hours = gr.Number(8, label="Hours", info="Time budget for all of it.", elem_id="hdb_build_hours")
                with gr.Accordion("Advanced", open=False, elem_id="hdb_build_advanced"):
                    photos = gr.Textbox(
                        "", label="Folder of photos", info="Instead of generated faces.", max_lines=1,
                        elem_id="hdb_build_photos",
                    )  # fmt: skip
                    batch = gr.Number(8, label="Batch", precision=0, elem_id="hdb_build_batch")
                    size = gr.Number(
                        0, label="Size in pixels", info="0: the checkpoint's", precision=0, elem_id="hdb_build_size"
                    )  # fmt: skip
                start = gr.Button("Start", variant="primary", elem_id="hdb_build_start")
                with gr.Row():
                    pause = gr.Button("Pause", elem_id="hdb_build_pause")
                    resume = gr.Button("Resume", elem_id="hdb_build_resume")
            with gr.Column(scale=3, min_width=320):
                self.status = gr.HTML(build_html.status(BuildStatus()), elem_id="hdb_build_status")
                self.shelf = gr.HTML("", elem_id="hdb_build_shelf")
                refresh = gr.Button("Refresh", elem_id="hdb_build_refresh")
        shown = [self.status, self.shelf]
        start.click(self.begin, [faces, hours, photos, batch, size], shown, **_QUIET)
        resume.click(self.resume, None, shown, **_QUIET)
        # Not through gradio's queue: it must act while the queue is busy.
        pause.click(builder.pause, None, None, queue=False)
        refresh.click(self.refresh, None, [self.shelf], **_QUIET)

    def begin(
        self, faces: float | None, hours: float | None, photos: str, batch: float | None, size: float | None
    ) -> Iterator[tuple[Any, Any]]:  # fmt: skip
        """Start, and follow."""
        wanted: dict[str, Any] = {"faces": int(faces or 0), "hours": float(hours or 0), "batch": int(batch or 0)}
        if photos.strip():
            wanted["photos"] = photos.strip()
        if size:
            wanted["size"] = int(size)
        yield from self._go(lambda: self.builder.start(wanted))

    def resume(self) -> Iterator[tuple[Any, Any]]:
        """Go on, and follow."""
        yield from self._go(self.builder.resume)

    def refresh(self) -> str:
        """The hypernetworks that are in the folders now."""
        return build_html.shelf(self.builder.hypernetworks())

    def follow(self) -> Iterator[tuple[Any, Any]]:
        """The page's updates as long as something happens."""
        seen = None
        yield gr.update(), self.refresh()
        while True:
            status = self.builder.status()
            if status != seen:
                yield build_html.status(status), self.refresh() if status.state == "done" else gr.update()
            if not status.working:
                return
            seen = status
            time.sleep(POLL_SECONDS)

    def _go(self, begin) -> Iterator[tuple[Any, Any]]:
        try:
            begin()
        except UserError as error:
            yield html.card(html.note(str(error), "error")), gr.update()
            return
        yield from self.follow()
