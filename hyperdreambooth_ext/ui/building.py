"""The sub-tab "Build hypernetwork": how many faces, how much time, start, pause, resume, and what is there.

Labels and numbers are text nodes of their own, as in `html`.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from ..errors import UserError
from ..hypernet.file import Found
from ..jobs.building import Builder, BuildStatus
from ..personalize.options import options_of
from ..pretrain.options import BuildOptions
from ..pretrain.progress import STAGE_WORDS
from . import html
from .advanced import number
from .folder import is_local
from .page import AT_ONCE, FOLLOWED, changes

POLL_SECONDS = 0.5
Updates = tuple[Any, ...]
_STATES = {"waiting": "Waiting", "pausing": "Pausing", "paused": "Paused", "failed": "Stopped", "done": "Done"}
_SCORES = {"likeness": "Likeness", "others": "Likeness to others", "rank1": "Rank-1 of held-out faces"}
WELCOME = (
    "A hypernetwork made for a checkpoint starts closer to the person. It learns from faces that the checkpoint "
    "generates: no photos and no download are needed. It takes hours on a graphics card, and waits while you generate."
)


class BuildPanel:
    """The sub-tab's components, wired to a builder. Made within a gradio layout."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                known = options_of(BuildOptions, "tab")
                faces = number(known["faces"], "hdb_build_faces")
                hours = number(known["hours"], "hdb_build_hours", 8)
                with gr.Accordion("Advanced", open=False, elem_id="hdb_build_advanced"):
                    photos = gr.Textbox(
                        "", label="Photos", info=known["photos"].help, max_lines=1, elem_id="hdb_build_photos"
                    )  # fmt: skip
                    batch = number(known["batch"], "hdb_build_batch", 8)
                    size = number(known["size"], "hdb_build_size")
                self.start = gr.Button("Start", variant="primary", elem_id="hdb_build_start")
                with gr.Row():
                    self.pause = gr.Button("Pause", interactive=False, min_width=100, elem_id="hdb_build_pause")
                    self.resume = gr.Button("Resume", interactive=False, min_width=100, elem_id="hdb_build_resume")
            with gr.Column(scale=3, min_width=320):
                self.status = gr.HTML(status_page(BuildStatus()), elem_id="hdb_build_status")
                self.use = gr.Button("Use the new hypernetwork", visible=False, elem_id="hdb_build_use")
                self.shelf = gr.HTML("", elem_id="hdb_build_shelf")
                refresh = gr.Button("Refresh", elem_id="hdb_build_refresh")
        self.shown = [self.status, self.shelf, self.start, self.pause, self.resume, self.use]
        self.start.click(self.begin, [faces, hours, photos, batch, size], self.shown, **FOLLOWED)
        self.resume.click(self.go_on, None, self.shown, **FOLLOWED)
        self.use.click(self.take, None, self.shown, **FOLLOWED)
        self.pause.click(builder.pause, None, None, **AT_ONCE)
        refresh.click(self.refresh, None, [self.shelf], **AT_ONCE)

    def begin(
        self, faces: float | None, hours: float | None, photos: str, batch: float | None, size: float | None,
        request: gr.Request,
    ) -> Iterator[Updates]:  # fmt: skip
        """Start, and follow."""
        wanted: dict[str, Any] = {"faces": int(faces or 0), "hours": float(hours or 0), "batch": int(batch or 0)}
        if size:
            wanted["size"] = int(size)

        def start() -> None:
            if photos.strip():
                if not is_local(request):
                    raise UserError("A folder of photos can be chosen only on the machine itself: leave it empty.")
                wanted["photos"] = photos.strip()
            self.builder.start(wanted)

        yield from self._go(start)

    def go_on(self) -> Iterator[Updates]:
        """Resume, and follow."""
        yield from self._go(self.builder.resume)

    def take(self) -> Iterator[Updates]:
        """Use the hypernetwork that was made from now on."""
        yield from self._go(self.builder.use)

    def refresh(self) -> str:
        """The hypernetworks that are in the folders now, and the one that is not used yet."""
        return shelf([*self.builder.hypernetworks(), *self.builder.offered()])

    def follow(self) -> Iterator[Updates]:
        """The page's updates as long as something happens."""
        same = gr.update()
        yield same, self.refresh(), *[same] * 4
        for status, seen in changes(self.builder.status, lambda status: not status.working, POLL_SECONDS):
            page = same if status == seen else status_page(status)
            yield page, self.refresh() if status.state == "done" else same, *buttons(status)

    def _go(self, begin: Callable[[], None]) -> Iterator[Updates]:
        try:
            begin()
        except UserError as error:
            yield html.card(html.note(str(error), "error")), *[gr.update()] * 5
            return
        yield from self.follow()


def buttons(status: BuildStatus) -> Updates:
    """Start, Pause, Resume, Use: each can be pressed when it does something."""
    return (
        gr.update(interactive=not status.working),
        gr.update(interactive=status.state in ("running", "waiting")),
        gr.update(interactive=status.state in ("paused", "failed")),
        gr.update(visible=status.offered),
    )


def status_page(build: BuildStatus) -> str:
    """Where the build is: stage, bar, time left, figures, and the picture sheet as it improves."""
    known = f'data-build="{build.state}"'
    if build.state == "idle":
        return f'<div class="hdb_card" {known}><p class="hdb_message">{escape(WELCOME)}</p></div>'
    head = _STATES.get(build.state) or STAGE_WORDS.get(build.stage or "", "Starting")
    page = f'<div class="hdb_card hdb_progress" {known}>'
    page += f'<div class="hdb_line"><b>{escape(head)}</b>{_counts(build)}</div>'
    if build.total and build.state != "done":
        page += html.bar(build.done / build.total)
    if build.score:
        page += _score(build.score)
    page += html.note(build.message, "error" if build.state == "failed" else "info")
    if build.sheet:
        page += html.picture(build.sheet, "Held-out faces and predictions", "hdb_sheet", "png")
    return f"{page}</div>"


def shelf(found: Sequence[Found]) -> str:
    """The hypernetworks that are there, and what each was made for."""
    shown = "".join(f"<div>{html.path_of(one.path.name)}{_facts(one)}</div>" for one in found)
    return f'<div class="hdb_card hdb_shelf">{shown or "<p>No hypernetwork is here yet.</p>"}</div>'


def _facts(found: Found) -> str:
    if found.config is None:
        return html.note(found.problem, "warning")
    made_for = f"{found.config.checkpoint} {found.config.checkpoint_hash}"
    facts = {"Made for": made_for, "Trained on": found.config.trained_on, "Held-out scores": found.config.held_out}
    return html.rows({name: escape(value) for name, value in facts.items()})


def _counts(build: BuildStatus) -> str:
    shown = ""
    if build.state != "done" and build.stage:
        stage = f"<span>{escape(STAGE_WORDS[build.stage])}</span>" if build.state in _STATES else ""
        shown = stage + html.count(build.done, build.total)
    return shown + html.time_left(build.eta_seconds if build.working else None)


def _score(score: dict[str, float]) -> str:
    facts = (
        f'<span class="hdb_quiet"><span>{word}</span> {100 * score[name]:.0f} %</span>'
        for name, word in _SCORES.items()
    )
    return f'<p class="hdb_identity">{"".join(facts)}</p>'
