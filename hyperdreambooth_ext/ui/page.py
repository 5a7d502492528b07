"""What the tab shows of a job, as one value: each field is the component of that name."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from ..errors import UserError
from ..jobs.job import JobStatus
from . import html

SILENCE_SECONDS = 2.0
# How an event answers. Only what is followed while it runs goes through gradio's queue: from gradio 4 on, all events of
# a page are told by one stream, which ends with the last of them, and one that joins at that moment is never answered.
FOLLOWED = {"show_progress": "hidden"}
AT_ONCE = {"show_progress": "hidden", "queue": False}
Status = TypeVar("Status")


class Page(NamedTuple):
    """Updates in the order of the outputs that `tab` wires; made by `page`."""

    job: Any
    progress: Any
    so_far: Any
    result: Any
    actions: Any
    prompt: Any
    facts: Any
    personalize: Any
    try_now: Any
    stop: Any
    interrupt: Any
    keep: Any
    resume: Any
    refusal: Any
    replace: Any


def page(**changes: Any) -> Page:
    """These fields anew, and everything else as it was."""
    return Page(**{name: gr.update() for name in Page._fields} | changes)


def changes(
    read: Callable[[], Status], ended: Callable[[Status], bool], poll_seconds: float
) -> Iterator[tuple[Status, Status | None]]:
    """What is read and what was read before, whenever they differ, until it has ended.

    And now and then although they do not: gradio lets go of a page that is gone only between two updates, and the
    WebUI's "Reload UI" waits for that.
    """
    seen: Status | None = None
    told = time.monotonic()
    while True:
        status = read()
        if status != seen or time.monotonic() - told > SILENCE_SECONDS:
            yield status, seen
            seen, told = status, time.monotonic()
        if ended(status):
            return
        time.sleep(poll_seconds)


def updates(handler: Callable[..., Iterator[Page]]) -> Callable[..., Iterator[tuple]]:
    """The handler as an event's function: gradio 3 takes a value of the type tuple for several, and no other kind."""

    def plain(*given: Any) -> Iterator[tuple]:
        yield from map(tuple, handler(*given))

    return plain


def shown(status: JobStatus, before: JobStatus | None) -> Page:
    """A job's status; pictures are sent only when they changed since `before`."""
    done = status.result
    changes = {
        "job": status.id,
        "progress": html.progress(status),
        "personalize": gr.update(interactive=status.ended),
        "try_now": gr.update(interactive=status.ended),
        "stop": gr.update(visible=not status.ended or status.can_keep),
        "interrupt": gr.update(visible=not status.ended),
        "keep": gr.update(visible=status.can_keep),
        "resume": gr.update(visible=status.can_continue),
        "refusal": "",
        "replace": gr.update(visible=False),
    }
    if before is None or html.so_far(before) != html.so_far(status):
        changes["so_far"] = html.so_far(status)
    if before is None or done != before.result:
        changes |= {
            "result": html.result(done) if done else "",
            "facts": html.facts(done) if done else "",
            "actions": gr.update(visible=done is not None),
        }
    if done:
        changes["prompt"] = done.prompt
    return page(**changes)


def refused(error: UserError) -> Page:
    """The sentence below the button, with a way to replace what is there."""
    taken = gr.update(visible="overwrite" in error.options)
    return page(refusal=html.note(str(error), "error"), replace=taken)


def idle(note: str = "") -> Page:
    """The first page. The buttons are as the page was built; a job that was started meanwhile keeps them."""
    return page(
        job="", progress=html.note(note, "warning") + html.welcome(answered=True), so_far="", result="", facts=""
    )
