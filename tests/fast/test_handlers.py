"""What the tab answers: a page at a time, and sentences where something is missing or wrong."""

import re
from itertools import islice

import gradio as gr
import pytest

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.jobs.job import JobStatus
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from hyperdreambooth_ext.ui import page as page_module
from hyperdreambooth_ext.ui.handlers import Handlers
from hyperdreambooth_ext.ui.page import Page, updates
from hyperdreambooth_ext.ui.people import PeoplePanel
from tests.studio import SHORT, ended, short_task


@pytest.fixture
def handlers(studio):
    return Handlers(studio, lambda advanced: dict(SHORT), None)


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
    id = handlers.studio.submit(short_task(photo[0].pixels, "bea"))
    *_, page = handlers.follow(id)
    assert "After" in page.result
    for unknown in ("", "gone"):
        (page,) = handlers.follow(unknown)
        assert "hdb_welcome" in page.progress and page.job == ""


def test_a_model_that_is_unfit_is_said_on_the_first_page(handlers, monkeypatch):
    monkeypatch.setattr(type(handlers.studio.backend), "unfit", lambda self: "Load another model.")
    (page,) = handlers.follow("")
    assert "Load another model." in page.progress


def test_export_writes_a_lora_once(handlers, photo):
    id = handlers.studio.submit(short_task(photo[0].pixels, "bea"))
    ended(handlers.studio, id)
    assert "bea_lora.safetensors" in handlers.export(id, False)
    assert "exists already" in handlers.export(id, False) and "bea_lora" in handlers.export(id, True)
    assert "not known any more" in handlers.export("gone", False)
