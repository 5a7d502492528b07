"""The tab: what it shows is escaped and translatable, uploads are not kept, and handlers answer with sentences."""

import inspect
import re
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from hyperdreambooth_ext.errors import PhotoError, UserError
from hyperdreambooth_ext.images.face import MAX_SURROUNDINGS, crop_face
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.jobs.forecast import Forecast
from hyperdreambooth_ext.jobs.job import JobStatus, Pair, Result
from hyperdreambooth_ext.jobs.library import Entry
from hyperdreambooth_ext.jobs.task import Task
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.personalize.options import PRESETS
from hyperdreambooth_ext.shipped import HYPERNETWORK, SAMPLE_PHOTO
from hyperdreambooth_ext.ui import html
from hyperdreambooth_ext.ui import page as page_module
from hyperdreambooth_ext.ui.advanced import Advanced
from hyperdreambooth_ext.ui.folder import can_open
from hyperdreambooth_ext.ui.handlers import Handlers
from hyperdreambooth_ext.ui.page import Page, updates
from hyperdreambooth_ext.ui.people import PeoplePanel
from hyperdreambooth_ext.ui.tab import build_tab
from hyperdreambooth_ext.ui.upload import describe, faces_of, read_upload
from tests.studio import SHORT, ended

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """Gradio's upload folder, and a way to put a file there as gradio does."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))

    def put(content: bytes, name: str = "photo.jpg"):
        path = tmp_path / "gradio" / "abc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return SimpleNamespace(name=str(path))

    return put


@pytest.fixture
def handlers(studio):
    return Handlers(studio, lambda advanced: dict(SHORT), None)


@pytest.fixture
def photo(small_photo, uploads, tmp_path):
    Image.fromarray(small_photo).save(tmp_path / "small.png")
    return read_upload(uploads((tmp_path / "small.png").read_bytes(), "small.png"))


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


def test_an_upload_is_read_and_its_copies_deleted(uploads):
    file = uploads(SAMPLE_PHOTO.read_bytes())
    assert len(read_upload(file)) == 1 and not Path(file.name).exists()


def test_of_a_photo_only_the_surroundings_of_its_faces_are_kept(uploads, sample_photo):
    canvas = np.full((3000, 4000, 3), 127, np.uint8)
    canvas[500 : 500 + len(sample_photo), 700 : 700 + sample_photo.shape[1]] = sample_photo
    whole = Photo(canvas)
    (kept,) = faces_of(whole)
    assert kept.pixels.nbytes < canvas.nbytes / 10 and kept.pixels.base is None
    for size in (64, 512):
        crops = [crop_face(one.pixels, one.faces[0], size).astype(int) for one in (whole, kept)]
        assert np.abs(crops[0] - crops[1]).max() <= 1, "what is learned is the same"
    large = Photo(
        np.asarray(Image.fromarray(sample_photo).resize((4000, 4000 * len(sample_photo) // len(sample_photo[0]))))
    )
    (kept,) = faces_of(large)
    assert max(kept.pixels.shape) <= MAX_SURROUNDINGS
    crops = [crop_face(one.pixels, one.faces[0], 256).astype(int) for one in (large, kept)]
    assert np.abs(crops[0] - crops[1]).mean() < 2


def test_a_file_that_is_no_picture_is_a_sentence_and_deleted_too(uploads):
    file = uploads(b"hello", "notes.txt")
    with pytest.raises(PhotoError, match="no picture"):
        read_upload(file)
    assert not Path(file.name).exists()


def test_a_path_outside_of_the_upload_folder_is_neither_read_nor_deleted(uploads, tmp_path):
    mine = tmp_path / "mine.jpg"
    mine.write_bytes(SAMPLE_PHOTO.read_bytes())
    for path in (mine, tmp_path / "gradio" / ".." / "mine.jpg"):
        with pytest.raises(PhotoError, match="drop it again"):
            read_upload(SimpleNamespace(name=str(path)))
    harmless = uploads(b"x", "x.jpg")
    with pytest.raises(PhotoError):
        read_upload(SimpleNamespace(name=harmless.name, orig_name=str(mine)))
    assert mine.exists()


def test_a_photo_that_is_too_large(uploads, monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.images.photo.MAX_PHOTO_BYTES", 1000)
    with pytest.raises(PhotoError, match="larger than"):
        read_upload(uploads(SAMPLE_PHOTO.read_bytes()))


def test_none_one_and_several_faces(sample_photo, small_photo, photo):
    wall = describe((), 1)
    assert "No face was found" in wall and "hdb_warning" in wall
    assert "hdb_warning" not in describe(photo, 1) and describe(photo, 1).count("<img") == 1
    several = describe(photo * 2, 2)
    assert several.count("<img") == 2 and 'hdb_chosen" data-face="2"' in several and "click the one" in several


def test_another_photo_starts_with_its_largest_face(handlers, uploads):
    place, photo, shown, face, refusal, replace = handlers.look(uploads(SAMPLE_PHOTO.read_bytes()))
    assert face == 1 and len(photo) == 1 and "<img" in shown
    assert place is None, "the next photo can be dropped at once"
    assert refusal == "" and not replace["visible"], "what was refused before is over"
    _, nothing, shown, *_ = handlers.look(uploads(b"hello"))
    assert nothing is None and "hdb_error" in shown


def test_personalize_follows_the_job_to_its_result(handlers, photo):
    pages = list(handlers.personalize(photo, 1, "anna", "balanced"))
    assert pages[0].interrupt["visible"] and not pages[-1].interrupt["visible"]
    assert 'data-stage="done"' in pages[-1].progress and pages[-1].result.count("After") == 4
    assert " KB" in pages[-1].facts and " KB" not in pages[-1].result
    assert pages[-1].prompt == "a sks face <lidb:anna:1>" and pages[-1].actions["visible"]


def test_gradio_gets_plain_values(handlers):
    """gradio 3 asks for the very types list and tuple."""
    (values,) = updates(handlers.follow)("")
    assert type(values) is tuple and len(values) == len(Page._fields)


def test_no_score_and_no_verdict_is_shown(handlers, photo):
    *_, page = handlers.personalize(photo, 1, "anna", "balanced")
    words = re.sub(r'src="[^"]*"', "", page.result + page.facts)
    assert not re.search(r"likeness|alike|%|identity", words, re.IGNORECASE)


def test_pictures_are_sent_once(handlers, photo):
    handlers.task_values = lambda advanced: {**SHORT, "steps": 30, "preview_every": 0}
    pages = list(handlers.personalize(photo, 1, "anna", "balanced"))
    assert len(pages) > 6 and not any("<img" in page.progress for page in pages)
    assert sum(isinstance(page.so_far, str) and "<img" in page.so_far for page in pages) == 1
    assert sum(isinstance(page.result, str) and "<img" in page.result for page in pages) == 1


def test_a_page_hears_of_a_job_that_stands_still_so_that_one_that_is_gone_is_let_go_of(handlers, photo, monkeypatch):
    monkeypatch.setattr(page_module, "SILENCE_SECONDS", 0.0)
    waiting = JobStatus("a", "anna", photo=b"x", message="Waiting for the model.")
    monkeypatch.setattr(handlers.studio, "job", lambda id: waiting)
    first, second = islice(handlers.follow("a"), 2)
    assert "Waiting" in first.progress and "<img" in first.so_far
    assert second.progress == first.progress and "<img" not in str(second.so_far)


def test_a_name_that_is_taken_offers_to_replace(handlers, photo):
    list(handlers.personalize(photo, 1, "anna", "fast"))
    (page,) = handlers.personalize(photo, 1, "anna", "fast")
    assert "exists already" in page.refusal and page.replace["visible"]
    *_, page = handlers.replace(photo, 1, "anna", "fast")
    assert "After" in page.result and not page.replace["visible"]


def test_try_now_takes_the_built_in_model_and_the_sample_photo(handlers, monkeypatch):
    loaded = []
    monkeypatch.setattr(type(handlers.studio.backend), "load_bundled", lambda self: loaded.append(True))
    trying = handlers.try_now()
    assert "Loading" in next(trying)[-1] and not loaded, "it is said before it takes its time"
    faces, shown, face, name, quality, _ = next(trying)
    assert loaded and "<img" in shown and (face, name, quality) == (1, "sample", "fast")
    first, *_, page = handlers.personalize(faces, face, name, quality)
    assert not first.try_now["interactive"] and page.try_now["interactive"]
    assert "After" in page.result and [*handlers.try_now()][-1][3] == "sample1"

    def fails(self):
        raise UserError("The small built-in model is missing.")

    monkeypatch.setattr(type(handlers.studio.backend), "load_bundled", fails)
    with pytest.raises(gr.Error, match="is missing"):
        list(handlers.try_now())


def test_a_line_before_the_press_tells_checkpoint_size_start_and_time(handlers, photo):
    with handlers.studio.backend.model():
        pass
    line = handlers.forecast("fast")
    assert (
        "tiny" in line and "64 px" in line and "starts from its hypernetwork" in line and "after the first job" in line
    )
    # The first iteration is not measured: a learning rate is looked for before it.
    handlers.task_values = lambda advanced: {**SHORT, "steps": 2}
    list(handlers.personalize(photo, 1, "anna", "fast"))
    assert re.search(r"about</span> \d+ s · \d+\.\d GB", handlers.forecast("fast"))
    handlers.studio.backend._host = None
    assert handlers.forecast("fast") == ""


def test_my_people_are_listed_renamed_deleted_and_brought_back(handlers, photo):
    list(handlers.personalize(photo, 1, "anna", "fast"))
    with gr.Blocks():
        people = PeoplePanel(handlers.studio, True)
    shown, buttons = people.choose("anna")
    assert 'data-person="anna"' in shown and "hdb_chosen" in shown and "tiny" in shown and buttons["visible"]
    assert 'data-prompt="a sks face &lt;lidb:anna:1&gt;"' in shown and 'data-size="64"' in shown
    assert people.prompt_of("anna")[0] == "a sks face <lidb:anna:1>"
    assert "anna_lora" in people.export_one("anna") and "exists already" in people.export_one("anna")
    shown, person, buttons, said, undo = people.rename_one("anna", "bea")
    assert 'data-person="bea"' in shown and person == "" and not buttons["visible"] and "bea was anna" in said
    assert "hdb_error" in people.rename_one("bea", "a/b")[3]
    shown, *_, undo = people.delete_one("bea")
    assert "Nobody was learned yet" in shown and undo["visible"]
    assert 'data-person="bea"' in people.undo_delete()[0]
    name, said = people.learn_again("bea")
    assert name == "bea" and "drop one of the same person" in said


@pytest.mark.parametrize(
    ("name", "has_photo", "sentence"),
    [("anna", False, "no photo yet"), (" ", True, "no name yet"), ("a/b", True, "character that a tag")],
)
def test_what_is_missing_or_wrong_is_a_sentence(handlers, photo, name, has_photo, sentence):
    (page,) = handlers.personalize(photo if has_photo else None, 1, name, "fast")
    assert sentence in page.refusal and "hdb_error" in page.refusal and not page.replace["visible"]


def test_an_interrupted_job_offers_to_keep(handlers, photo):
    handlers.task_values = lambda advanced: {**SHORT, "steps": 500}
    for page in handlers.personalize(photo, 1, "anna", "fast"):
        # Not at 0: before the first iteration there is nothing to keep.
        if re.search(r"[1-9]\d* / 500", page.progress):
            handlers.interrupt(page.job)
    assert page.keep["visible"] and page.resume["visible"] and "nothing is saved yet" in page.progress
    handlers.interrupt("gone")
    before = int(re.search(r"after (\d+)", page.progress)[1])
    for again in handlers.resume(page.job):
        if (found := re.search(r"(\d+) / 500", again.progress)) and int(found[1]) > before:
            handlers.interrupt(page.job)
    *_, page = handlers.keep(page.job)
    assert "After" in page.result and not page.keep["visible"]


def test_after_a_refresh_a_job_is_found_again_and_an_unknown_one_shows_the_first_page(handlers, photo):
    id = handlers.studio.submit(handlers_task(photo))
    *_, page = handlers.follow(id)
    assert "After" in page.result
    for unknown in ("", "gone"):
        (page,) = handlers.follow(unknown)
        assert "hdb_welcome" in page.progress and page.job == ""


def handlers_task(photo):
    from tests.studio import short_task

    return short_task(photo[0].pixels, "bea")


def test_a_model_that_is_unfit_is_said_on_the_first_page(handlers, monkeypatch):
    monkeypatch.setattr(type(handlers.studio.backend), "unfit", lambda self: "Load another model.")
    (page,) = handlers.follow("")
    assert "Load another model." in page.progress


def test_export_writes_a_lora_once(handlers, photo):
    id = handlers.studio.submit(handlers_task(photo))
    ended(handlers.studio, id)
    assert "bea_lora.safetensors" in handlers.export(id, False)
    assert "exists already" in handlers.export(id, False) and "bea_lora" in handlers.export(id, True)
    assert "not known any more" in handlers.export("gone", False)


def test_the_folder_opens_only_for_somebody_at_this_machine(monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.ui.folder._opener", lambda: "open")

    def request(host, headers=None):
        return SimpleNamespace(client=SimpleNamespace(host=host), headers=headers or {})

    assert can_open(request("127.0.0.1")) and can_open(request("::1"))
    assert not can_open(request("192.168.1.5")) and not can_open(request("testclient"))
    assert not can_open(request("127.0.0.1", {"x-forwarded-for": "1.2.3.4"})) and not can_open(None)


def test_the_upload_folder_is_gradios(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    from hyperdreambooth_ext.ui.upload import _upload_folder

    assert _upload_folder() == (Path(tempfile.gettempdir()) / "gradio").resolve()
