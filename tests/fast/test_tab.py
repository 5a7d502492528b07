"""The tab: what it holds, and that what it shows is escaped."""

import inspect
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.jobs.forecast import Forecast
from hyperdreambooth_ext.jobs.job import JobStatus, Pair, Result
from hyperdreambooth_ext.jobs.library import Entry
from hyperdreambooth_ext.jobs.task import Task
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.personalize.options import PRESETS
from hyperdreambooth_ext.shipped import HYPERNETWORK
from hyperdreambooth_ext.ui import html
from hyperdreambooth_ext.ui.advanced import Advanced
from hyperdreambooth_ext.ui.folder import can_open
from hyperdreambooth_ext.ui.tab import build_tab

EVIL = "<img src=x onerror=alert(1)>"


def components(tab):
    return {block.elem_id: block for block in tab.blocks.values() if getattr(block, "elem_id", None)}


def test_the_visible_form_has_three_inputs_and_the_rest_is_under_one_lid(studio):
    found = components(build_tab(studio))
    assert {"hdb_photo", "hdb_name", "hdb_quality", "hdb_personalize", "hdb_advanced"} <= found.keys()
    assert isinstance(found["hdb_advanced"], gr.Accordion) and not found["hdb_advanced"].open
    left = found["hdb_photo"].parent
    inputs = (gr.Textbox, gr.Radio, gr.File, gr.Number, gr.Slider, gr.Dropdown, gr.Checkbox)
    outside = [block for block in found.values() if isinstance(block, inputs) and left in ancestors(block)]
    outside = [block for block in outside if found["hdb_advanced"] not in ancestors(block)]
    assert {block.elem_id for block in outside if not hidden(block)} == {"hdb_photo", "hdb_name", "hdb_quality"}
    assert {"hdb_try", "hdb_forecast", "hdb_people"} <= found.keys()


def hidden(block):
    return any("hdb_hidden" in (above.elem_classes or []) for above in ancestors(block))


def ancestors(block):
    while block.parent is not None:
        block = block.parent
        yield block


def test_every_id_of_ours_has_our_prefix_and_stands_once(studio):
    for generate in (None, lambda prompt, seed: np.zeros((8, 8, 3), np.uint8)):
        blocks = build_tab(studio, generate).blocks.values()
        ids = [block.elem_id for block in blocks if getattr(block, "elem_id", None)]
        assert len(ids) == len(set(ids)) and all(id.startswith("hdb_") for id in ids)


def test_the_webui_sends_to_txt2img_and_our_window_generates(studio):
    assert "hdb_send" in components(build_tab(studio)) and "hdb_generate" not in components(build_tab(studio))
    own = components(build_tab(studio, lambda prompt, seed: np.zeros((8, 8, 3), np.uint8)))
    assert "hdb_generate" in own and "hdb_send" not in own


def queued(tab):
    """Functions of the tab's events that go through gradio's queue (3.41 keeps that beside them)."""
    if isinstance(tab.fns, dict):
        return [event.fn for event in tab.fns.values() if event.fn and event.queue is not False]
    pairs = zip(tab.fns, tab.dependencies, strict=True)
    return [event.fn for event, told in pairs if event.fn and told["queue"] is not False]


def test_only_what_is_followed_while_it_runs_waits_in_gradios_queue(studio):
    functions = queued(build_tab(studio))
    assert functions and all(map(inspect.isgeneratorfunction, functions)), functions


def test_the_script_and_the_style_name_only_ids_that_are_there(studio):
    root = Path(__file__).parents[2]
    found = components(build_tab(studio)).keys() | components(build_tab(studio, lambda *_: None)).keys()
    for text in (root / "javascript" / "hyperdreambooth.js").read_text(), (root / "style.css").read_text():
        named = set(re.findall(r"#(hdb_\w+)", text)) - {"hdb_style"}
        assert named <= found, named - found


def test_numbers_of_zero_and_cleared_ones_leave_the_choice_to_the_quality(studio):
    with gr.Blocks():
        advanced = Advanced()
    initial = [component.value for component in advanced.components]
    cleared = [None if value == 0 and value is not False else value for value in initial]
    photo = Photo(np.zeros((1, 1, 3), np.uint8))
    for given in (initial, cleared):
        task = Task(photo, "a", **advanced.values(given)).checked()
        assert task.request("a") == Task(photo, "a").request("a") and task.finetune() == PRESETS["balanced"]
    names = [component.elem_id for component in advanced.components]
    changed = dict(zip(names, initial, strict=True)) | {"hdb_steps": 7, "hdb_start": "Zero", "hdb_overwrite": True}
    task = Task(photo, "a", **advanced.values(list(changed.values()))).checked()
    assert (task.finetune().steps, task.start, task.overwrite) == (7, "zero", True)
    changed = dict(zip(names, initial, strict=True)) | {"hdb_hypernetwork": "mine.safetensors"}
    assert Task(photo, "a", **advanced.values(list(changed.values()))).checked().hypernetwork == "mine.safetensors"
    with pytest.raises(UserError, match="set one of the two back"):
        Task(photo, "a", start="zero", hypernetwork="mine.safetensors").checked()


def test_the_hypernetworks_that_are_there_can_be_chosen(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(type(studio.backend), "hypernetwork_dirs", lambda self: [tmp_path])
    shutil.copy(HYPERNETWORK, tmp_path)
    (tmp_path / "broken-hypernetwork.safetensors").write_bytes(b"half a download")
    offered = components(build_tab(studio))["hdb_hypernetwork"].choices
    # gradio 3 keeps plain values, newer ones pairs of label and value.
    assert [one if isinstance(one, str) else one[1] for one in offered] == ["Automatic", HYPERNETWORK.name]


def test_what_comes_from_outside_is_escaped():
    status = JobStatus(EVIL, EVIL, "failed", message=EVIL, start_reason=EVIL)
    pairs = (Pair(0, b"x", b"x"),)
    result = Result(Path(EVIL), 1, 1, 1, EVIL, EVIL, EVIL, EVIL, 0, b"x", pictures=pairs, identity_words=EVIL)
    shown = [html.progress(status), html.note(EVIL, "error"), html.result(result), html.picture(b"", EVIL)]
    entry = Entry(EVIL, Path(EVIL), 1, 0.0, Info(name=EVIL, trigger=EVIL, checkpoint=EVIL))
    shown += [html.facts(result), html.people([entry], "", None), html.forecast(Forecast(EVIL, 512, "gradient"))]
    shown += [html.saved(EVIL, Path(EVIL)), html.progress(JobStatus("a", EVIL, "finetune", message=EVIL))]
    for page in shown:
        assert "<img src=x" not in page and 'alt="<' not in page


def test_labels_and_numbers_are_text_nodes_of_their_own():
    page = html.progress(JobStatus("a", "anna", "finetune", step=3, steps=40, eta_seconds=65, message="Learning."))
    texts = [text.strip() for text in re.split(r"<[^>]*>", page) if text.strip()]
    assert texts == ["Learning", "anna", "3 / 40", "Time left", "1:05", "Learning."]


def test_estimates_in_the_unit_that_one_thinks_in():
    assert [html.duration(seconds) for seconds in (46.6, 155, 9000)] == ["47 s", "3 min", "2.5 h"]


def test_times_as_a_clock():
    assert [html.clock(seconds) for seconds in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]


def test_the_folder_opens_only_for_somebody_at_this_machine(monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.ui.folder._opener", lambda: "open")

    def request(host, headers=None):
        return SimpleNamespace(client=SimpleNamespace(host=host), headers=headers or {})

    assert can_open(request("127.0.0.1")) and can_open(request("::1"))
    assert not can_open(request("192.168.1.5")) and not can_open(request("testclient"))
    assert not can_open(request("127.0.0.1", {"x-forwarded-for": "1.2.3.4"})) and not can_open(None)
