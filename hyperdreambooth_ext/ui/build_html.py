"""The sub-tab "Build hypernetwork" as HTML. Labels and numbers are text nodes of their own, as in `html`."""

from collections.abc import Sequence
from html import escape

from ..hypernet.file import Found
from ..jobs.building import BuildStatus
from . import html

_STAGES = {
    "faces": "Generating faces", "prepare": "Preparing the faces", "recognizer": "Training the recognizers",
    "targets": "Optimizing targets", "train": "Training", "export": "Writing the file",
    "done": "Done",
}  # fmt: skip
_STATES = {"waiting": "Waiting", "pausing": "Pausing", "paused": "Paused", "failed": "Stopped", "done": "Done"}
WELCOME = (
    "A hypernetwork made for a checkpoint starts closer to the person. It learns from faces that the checkpoint "
    "generates: no photos and no download are needed. It takes hours on a graphics card, and waits while you generate."
)


def status(build: BuildStatus) -> str:
    """Where the build is: stage, bar, time left, figures, and the picture sheet as it improves."""
    known = f'data-build="{build.state}"'
    if build.state == "idle":
        return f'<div class="hdb_card" {known}><p class="hdb_message">{escape(WELCOME)}</p></div>'
    head = _STATES.get(build.state) or _STAGES.get(build.stage or "", "Starting")
    lines = [
        f'<div class="hdb_card hdb_progress" {known}><div class="hdb_line"><b>{escape(head)}</b>{_counts(build)}</div>'
    ]
    if build.total and build.state != "done":
        lines.append(html.bar(build.done / build.total))
    if build.score:
        lines.append(_score(build.score))
    if build.message:
        kind = "error" if build.state == "failed" else "info"
        lines.append(html.note(build.message, kind))
    if build.sheet:
        lines.append(html.picture(build.sheet, "Held-out faces and predictions", "hdb_sheet", "png"))
    return "".join([*lines, "</div>"])


def shelf(found: Sequence[Found]) -> str:
    """The hypernetworks that are there, and what each was made for."""
    rows = "".join(f"<tr>{_row(one)}</tr>" for one in found)
    head = "<tr><th>File</th><th>Made for</th><th>Trained on</th><th>Held-out scores</th></tr>"
    return f'<div class="hdb_card hdb_shelf"><table>{head}{rows}</table></div>'


def _row(found: Found) -> str:
    name = f'<td><code class="hdb_path">{escape(found.path.name)}</code></td>'
    if found.config is None:
        return f'{name}<td colspan="3">{escape(found.problem)}</td>'
    made_for = f"{found.config.checkpoint} {found.config.checkpoint_hash}"
    cells = (made_for, found.config.trained_on, found.config.held_out)
    return name + "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _counts(build: BuildStatus) -> str:
    parts = []
    if build.state != "done" and build.stage:
        if build.state in _STATES:
            parts.append(f"<span>{escape(_STAGES[build.stage])}</span>")
        parts.append(f'<span class="hdb_count">{build.done} / {build.total}</span>')
    if build.eta_seconds is not None and build.working:
        left = f'<span class="hdb_count">{html.clock(build.eta_seconds)}</span>'
        parts.append(f'<span class="hdb_eta"><span>Time left</span> {left}</span>')
    return "".join(parts)


def _score(score: dict[str, float]) -> str:
    words = (("Likeness", "likeness"), ("Likeness to others", "others"), ("Rank-1 of held-out faces", "rank1"))
    facts = "".join(
        f'<span class="hdb_quiet"><span>{escape(word)}</span> {100 * score[name]:.0f} %</span>' for word, name in words
    )
    return f'<p class="hdb_identity">{facts}</p>'
