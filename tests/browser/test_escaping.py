"""A script in every field that comes from outside: the browser shows it and never runs it."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hyperdreambooth_ext.jobs.forecast import Forecast
from hyperdreambooth_ext.jobs.job import JobStatus, Pair, Result
from hyperdreambooth_ext.jobs.library import Entry
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.ui import html
from hyperdreambooth_ext.ui.upload import describe
from tests.browser.test_tab import drop
from tests.conftest import SMALL, random_lidb

ATTEMPTS = (
    "<script>window.owned=1</script>", "<img src=x onerror=window.owned=1>", "\"><svg onload=window.owned=1>",
    "' onmouseover='window.owned=1' x='", "</textarea><iframe srcdoc='<script>parent.owned=1</script>'>",
    "javascript:window.owned=1", "&lt;script&gt;window.owned=1&lt;/script&gt;",
)  # fmt: skip


def with_texts(thing, text):
    """`thing` with `text` in every field that holds words."""
    words = {f.name: text for f in fields(thing) if isinstance(getattr(thing, f.name), str) and f.name != "stage"}
    return replace(thing, **words)


def pages(text: str) -> list[str]:
    """All that the tab makes of words from outside."""
    result = with_texts(Result(Path(text), 1, 1.0, 1, "", "", "", "", 0, b"x", pictures=(Pair(0, b"x", b"x"),)), text)
    stages = ("queued", "face", "predict", "finetune", "saving", "pictures", "failed", "cancelled")
    status = JobStatus("id", "n", step=1, steps=2, photo=b"x", preview=b"x", message="m", start="s", start_reason="r")
    shown = [html.progress(replace(with_texts(status, text), stage=stage)) for stage in stages]
    info = with_texts(file.Info(), text)
    shown += [html.result(result), html.facts(result), html.saved(text, Path(text)), html.so_far(status)]
    shown += [html.people([Entry(text, Path(text), 1, 0.0, info)], "", None), html.forecast(Forecast(text, 64, "zero"))]
    shown += [html.note(text, kind) for kind in ("info", "warning", "error")] + [html.picture(b"x", text)]
    return [*shown, describe((), 1)]


@pytest.mark.parametrize("text", ATTEMPTS)
def test_no_page_of_the_tab_runs_what_a_field_says(browser, text):
    context = browser.new_context()
    page = context.new_page()
    page.set_content("<body>" + "".join(f"<section>{shown}</section>" for shown in pages(text)))
    for element in page.query_selector_all("[alt], [title], figure, code, p"):
        element.dispatch_event("mouseover")
    page.wait_for_timeout(100)
    assert page.evaluate("window.owned") is None
    assert page.locator("script, iframe, svg, img[onerror], [onmouseover], [onload]").count() == 0
    assert page.inner_text("body").count(text.strip()) >= 8
    context.close()


def test_hostile_names_prompts_and_files_in_the_window(page, lidb_dir, tmp_path):
    text = ATTEMPTS[1]
    lidb_dir.mkdir(exist_ok=True)
    hostile = file.Info(name=text, trigger=text, checkpoint=text, model_family=text, hypernetwork=text, start=text)
    file.save(lidb_dir / "hostile.safetensors", random_lidb(SMALL), hostile)
    (tmp_path / f"{text}.jpg".replace("/", "")).write_bytes(b"no picture")
    drop(page, tmp_path / f"{text}.jpg".replace("/", ""))
    page.wait_for_selector("#hdb_faces .hdb_error")
    page.fill("#hdb_name textarea, #hdb_name input", text)
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal .hdb_error")
    listed = page.evaluate("fetch('/hyperdreambooth/v1/lidbs').then(answer => answer.json())")
    assert any(entry["trigger"] == text for entry in listed)
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    (lidb_dir / "hostile.safetensors").unlink()
