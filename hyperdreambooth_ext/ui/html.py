"""The tab's pictures and sentences as HTML. Everything from outside is escaped here.

Labels and numbers are text nodes of their own: the WebUI's localization replaces whole text nodes.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ..hosts.protocol import Host
from ..jobs.forecast import Forecast
from ..jobs.job import JobStatus, Result
from ..jobs.library import Entry
from ..personalize.personalize import face_prompt
from ..sampling.sampler import usual_cfg

_STAGES = {
    "queued": "Waiting",
    "face": "Finding the face",
    "predict": "Predicting",
    "finetune": "Learning",
    "saving": "Saving",
    "pictures": "Sampling before and after",
    "failed": "Failed",
    "cancelled": "Interrupted",
}
_STARTS = {
    "hypernetwork": "starts from its hypernetwork: most alike",
    "gradient": "starts along the gradient: less alike than from a hypernetwork",
    "zero": "starts at nothing: less alike",
}
_WELCOME = (
    ("One photo", "A face from the front, in even light. It stays on this machine and is not kept."),
    ("One name", "It becomes the tag that brings the person into any prompt."),
    ("Personalize", "A file of about 100 KB then brings the person into your pictures."),
)


def welcome(answered: bool = False) -> str:
    """What is shown before anything was done; `answered` tells the script that the server has nothing else to show."""
    steps = "".join(
        f'<li><span class="hdb_number">{number}</span><div><b>{escape(title)}</b><p>{escape(text)}</p></div></li>'
        for number, (title, text) in enumerate(_WELCOME, 1)
    )
    yes = "yes" if answered else ""
    return f'<div class="hdb_card hdb_welcome" data-job="" data-answered="{yes}"><ol>{steps}</ol></div>'


def note(sentence: str, kind: str = "info") -> str:
    """One sentence; `kind` is info, warning or error. Empty for an empty sentence."""
    if not sentence:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<div class="hdb_note hdb_{kind}" role="{role}">{escape(sentence)}</div>'


def card(inner: str) -> str:
    """A frame around HTML that is escaped already."""
    return f'<div class="hdb_card">{inner}</div>'


def saved(sentence: str, path: Path) -> str:
    """What was written, and where."""
    return f'<div class="hdb_note hdb_info" role="status"><span>{escape(sentence)}</span> {path_of(str(path))}</div>'


def picture(jpeg: bytes, caption: str, css: str = "", kind: str = "jpeg") -> str:
    """A picture with words under it, inside the page: nothing is written to a folder that others can read."""
    data = base64.b64encode(jpeg).decode()
    return (
        f'<figure class="hdb_picture {css}"><img alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def faces(crops: Sequence[bytes], chosen: int) -> str:
    """The faces of a photo, the largest first; `chosen` counts from 1. A click chooses another, by the script."""
    if len(crops) == 1:
        return f'<div class="hdb_faces">{picture(crops[0], "Face used for training")}</div>'
    items = "".join(
        f'<button type="button" class="hdb_face{" hdb_chosen" if number == chosen else ""}" data-face="{number}" '
        f'aria-pressed="{str(number == chosen).lower()}" title="Learn this face">'
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(crop).decode()}"></button>'
        for number, crop in enumerate(crops, 1)
    )
    return f'<div class="hdb_faces">{items}</div>'


def loading() -> str:
    """What is shown while the built-in model is loaded, before there is a job."""
    return '<div class="hdb_card" data-job=""><div class="hdb_line"><b>Loading the small built-in model</b></div></div>'


def progress(status: JobStatus) -> str:
    """Where a job is: the bar and the time left; once it ended, its last sentence."""
    known = f'data-job="{escape(status.id)}" data-stage="{status.stage}"'
    if status.stage == "done":
        # The result says the rest.
        return f"<div hidden {known}></div>"
    head = f'<div class="hdb_card hdb_progress" {known}>'
    lines = [head, f'<div class="hdb_line"><b>{_STAGES[status.stage]}</b>{_counts(status)}</div>']
    if not status.ended:
        lines.append(bar(status.fraction))
    if status.stage == "failed":
        lines.append(note(status.message, "error"))
    elif status.message:
        lines.append(f'<p class="hdb_message">{escape(status.message)}</p>')
    if status.start_reason and not status.ended:
        lines.append(f'<p class="hdb_message hdb_quiet">{escape(status.start_reason)}</p>')
    return "".join([*lines, "</div>"])


def so_far(status: JobStatus) -> str:
    """The photo's face and the newest preview, empty once there is a result."""
    if status.stage == "done" or not status.photo:
        return ""
    shown = picture(status.photo, "The photo")
    if status.preview:
        shown += picture(status.preview, "So far", "hdb_live")
    elif not status.ended:
        shown += '<figure class="hdb_picture hdb_empty"><div></div><figcaption>So far</figcaption></figure>'
    return f'<div class="hdb_pictures">{shown}</div>'


def result(done: Result) -> str:
    """The pictures of a finished job; a click enlarges one, by the script."""
    shown = picture(done.photo, "The photo", "hdb_original")
    shown += "".join(picture(pair.before, "Before") for pair in done.pictures)
    shown += "".join(picture(pair.after, "After", "hdb_after") for pair in done.pictures)
    known = f'data-size="{done.size}" data-cfg="{done.cfg:g}"'
    return (
        f'<div class="hdb_card hdb_result" {known}>'
        f'<div class="hdb_pictures hdb_seeds_{len(done.pictures)}">{shown}</div></div>'
    )


def facts(done: Result) -> str:
    """What is to be known of the file."""
    known = rows({
        "File": path_of(str(done.path)),
        "Size": f"<span>{done.file_bytes / 1000:.0f} KB</span>",
        "Time": f"<span>{clock(done.seconds)}</span>",
        "Iterations": f"<span>{done.steps}</span>",
        "Seed": f"<span>{done.seed}</span>",
    })  # fmt: skip
    return f'{known}<p class="hdb_message hdb_quiet">{escape(done.start_reason)}</p>'


def rows(values: Mapping[str, str]) -> str:
    """Names and what they are, which is escaped already, one below the other; what is empty is left out."""
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in values.items() if value)
    return f'<dl class="hdb_facts">{shown}</dl>'


def path_of(path: str) -> str:
    """A file's name or path, in letters of one width."""
    return f'<code class="hdb_path">{escape(path)}</code>'


def forecast(known: Forecast | None) -> str:
    """One line before the press: checkpoint, size, start, time and memory; empty while nothing is known."""
    if known is None:
        return ""
    parts = [escape(known.checkpoint), f"{known.size} px", f"<span>{_STARTS[known.start]}</span>"]
    if known.seconds is None:
        parts.append("<span>the time is known after the first job</span>")
    else:
        parts.append(f"<span>about</span> {duration(known.seconds)}")
        parts += [f"{known.megabytes / 1000:.1f} GB"] if known.megabytes else []
    return f'<p class="hdb_forecast">{" · ".join(parts)}</p>'


def people(entries: Sequence[Entry], chosen: str, host: Host | None) -> str:
    """The LiDBs that are there as cards; a click chooses one, by the script."""
    if not entries:
        return '<p class="hdb_message hdb_quiet">Nobody was learned yet.</p>'
    size = f'data-size="{host.default_size}" data-cfg="{usual_cfg(host.default_size):g}"' if host else ""
    return f'<div class="hdb_people" {size}>{"".join(_person(entry, entry.name == chosen) for entry in entries)}</div>'


def prompt_of(entry: Entry) -> str:
    """A whole prompt with trigger and tag."""
    return f"{face_prompt(entry.info.trigger)} <lidb:{entry.name}:1>"


def _person(entry: Entry, chosen: bool) -> str:
    face = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(entry.info.thumbnail).decode()}">'
    day = time.strftime("%Y-%m-%d", time.localtime(entry.modified))
    return (
        f'<button type="button" class="hdb_person{" hdb_chosen" if chosen else ""}" '
        f'aria-pressed="{str(chosen).lower()}" data-person="{escape(entry.name)}" '
        f'data-prompt="{escape(prompt_of(entry))}">'
        f"{face if entry.info.thumbnail else '<div></div>'}<b>{escape(entry.name)}</b>"
        f'<span class="hdb_quiet">{escape(entry.info.checkpoint)}</span><span class="hdb_quiet">{day}</span></button>'
    )


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, 1:05, with hours only where there are any."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Seconds as one reads an estimate: 47 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _counts(status: JobStatus) -> str:
    shown = f"<span>{escape(status.name)}</span>" if status.stage == "finetune" else ""
    if status.stage == "queued" and status.waiting:
        shown += f"<span>Jobs before this one</span><span>{status.waiting}</span>"
    if status.ended:
        return shown
    return shown + (count(status.step, status.steps) if status.steps else "") + time_left(status.eta_seconds)


def count(done: int, total: int) -> str:
    """So many of so many."""
    return f'<span class="hdb_count">{done} / {total}</span>'


def time_left(seconds: float | None) -> str:
    """Empty where that is not known."""
    if seconds is None:
        return ""
    return f'<span class="hdb_eta"><span>Time left</span> <span class="hdb_count">{clock(seconds)}</span></span>'


def bar(fraction: float) -> str:
    """How far something is, from 0 to 1."""
    percent = f"{100 * fraction:.1f}"
    return (
        f'<div class="hdb_bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        f'<div style="width:{percent}%"></div></div>'
    )
