"""What an artist does in the tab, in a real browser, on the embedded model."""

import base64
import re
from itertools import count

import pytest
from PIL import Image

from hyperdreambooth_ext.personalize.options import PRESETS
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.browser.conftest import ANSWERED
from tests.bundled import SIZE

VIEWS = [(width, theme) for width in (1280, 800) for theme in ("light", "dark")]
names = (f"anna{number}" for number in count(1))


@pytest.fixture
def two_faces(tmp_path):
    photo = Image.open(SAMPLE_PHOTO)
    both = Image.new("RGB", (photo.width * 2, photo.height))
    both.paste(photo, (0, 0))
    both.paste(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (photo.width, 0))
    both.save(tmp_path / "two.jpg")
    return tmp_path / "two.jpg"


@pytest.fixture
def wall(tmp_path):
    Image.new("RGB", (300, 300), (120, 130, 140)).save(tmp_path / "wall.png")
    return tmp_path / "wall.png"


def drop(page, file, mime="image/jpeg"):
    """Drag a file onto the photo's place and let go, as a hand does."""
    content = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type}));
            return transfer;
        }""",
        [content, file.name, mime],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#hdb_photo input[type=file]", event, {"dataTransfer": transfer})


def fill(page, name=None, iterations=None):
    """Drop the sample photo, type a name, and set the iterations under Advanced."""
    drop(page, SAMPLE_PHOTO)
    page.wait_for_selector("#hdb_faces img")
    page.fill("#hdb_name textarea, #hdb_name input", name or next(names))
    page.click("#hdb_quality >> text=Fast")
    if iterations is not None:
        page.click("#hdb_advanced >> text=Advanced")
        page.fill("#hdb_steps input", str(iterations))
        page.press("#hdb_steps input", "Tab")


def job_of(page):
    page.wait_for_selector('#hdb_progress [data-job]:not([data-job=""])')
    return page.get_attribute("#hdb_progress [data-job]", "data-job")


def bar(page):
    return float(page.get_attribute("#hdb_progress .hdb_bar", "aria-valuenow"))


def overlaps(page):
    """Pairs of things that are seen and lie on each other without one holding the other."""
    return page.evaluate(
        """() => {
            const seen = [...document.querySelectorAll(
                "#hdb_tab button, #hdb_tab input, #hdb_tab textarea, #hdb_tab figure, #hdb_tab .hdb_note, #hdb_tab p"
            )].filter(element => element.offsetWidth > 4 && element.offsetHeight > 4 && element.type !== "file");
            const pairs = [];
            seen.forEach((a, i) => seen.slice(i + 1).forEach(b => {
                if (a.contains(b) || b.contains(a)) return;
                const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
                const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
                const height = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
                if (width > 2 && height > 2) pairs.push([a.outerHTML.slice(0, 120), b.outerHTML.slice(0, 120)]);
            }));
            return pairs;
        }"""
    )


def look(page, screenshots, name):
    """Keep a picture of the page; nothing overlaps and nothing runs out of the window."""
    page.screenshot(path=str(screenshots / f"{name}.png"), full_page=True)
    assert overlaps(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_from_a_dropped_photo_to_pictures_and_files(page, open_page, lidb_dir, screenshots):
    fill(page, "anna")
    assert "Face used for training" in page.inner_text("#hdb_faces")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_so_far .hdb_live")
    first = bar(page)
    assert page.is_disabled("#hdb_personalize")
    assert re.search(rf"\d+ / {PRESETS['fast'].steps}\b", page.inner_text("#hdb_progress"))
    job = job_of(page)
    page.wait_for_function(f"+document.querySelector('#hdb_progress .hdb_bar').ariaValueNow > {first}")
    page.wait_for_function("document.querySelector('#hdb_progress').innerText.includes('Time left')")
    page.wait_for_selector("#hdb_result .hdb_after")
    assert all(words in page.inner_text("#hdb_result") for words in ("The photo", "Before", "After"))
    shown = page.inner_text("#hdb_facts")
    assert "KB" in shown and "anna.safetensors" in shown and "made for this checkpoint" in shown
    assert (lidb_dir / "anna.safetensors").stat().st_size < 120_000
    assert page.input_value("#hdb_prompt textarea") == "a sks face <lidb:anna:1>"
    below = [page.locator(name).first.bounding_box()["y"] for name in ("#hdb_result", "#hdb_generate", "#hdb_facts")]
    assert below == sorted(below), "pictures, buttons, facts"
    assert page.locator("#hdb_result .hdb_after").count() == 2
    page.click("#hdb_result .hdb_after img >> nth=0")
    assert page.locator(".hdb_large img").bounding_box()["height"] > 600
    page.keyboard.press("Escape")
    assert page.locator(".hdb_large").count() == 0
    assert "about" in page.inner_text("#hdb_forecast") and "GB" in page.inner_text("#hdb_forecast")
    page.click("#hdb_export")
    page.wait_for_selector("#hdb_note >> text=anna_lora.safetensors")
    assert (lidb_dir / "anna_lora.safetensors").exists()
    page.fill("#hdb_prompt textarea", "a sks face, oil painting <lidb:anna:0.8>")
    page.click("#hdb_generate")
    page.wait_for_selector("#hdb_generated img")
    assert page.evaluate("document.querySelector('#hdb_generated img').naturalWidth") == SIZE
    look(page, screenshots, "generated-1280-light")
    assert page.is_enabled("#hdb_personalize") and not page.is_visible("#hdb_interrupt")
    for width, theme in VIEWS:
        other = open_page(width, theme, job)
        other.wait_for_selector("#hdb_result .hdb_after")
        look(other, screenshots, f"done-{width}-{theme}")


def test_interrupt_keep_and_a_page_that_is_refreshed_meanwhile(page, open_page, lidb_dir, screenshots):
    fill(page, "bea", iterations=900)
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_so_far .hdb_live")
    job = job_of(page)
    page.reload()
    page.wait_for_selector("#hdb_so_far .hdb_live")
    assert job_of(page) == job and page.is_visible("#hdb_interrupt")
    before = bar(page)
    page.wait_for_function(f"+document.querySelector('#hdb_progress .hdb_bar').ariaValueNow > {before}")
    for width, theme in VIEWS:
        other = open_page(width, theme, job)
        other.wait_for_selector("#hdb_so_far .hdb_live")
        look(other, screenshots, f"learning-{width}-{theme}")
    page.click("#hdb_interrupt")
    page.wait_for_selector("#hdb_keep", state="visible")
    assert page.is_visible("#hdb_continue") and "nothing is saved yet" in page.inner_text("#hdb_progress")
    page.click("#hdb_continue")
    page.wait_for_selector("#hdb_interrupt", state="visible")
    page.wait_for_selector("#hdb_progress [data-stage=finetune]")
    page.wait_for_timeout(1000)
    page.click("#hdb_interrupt")
    page.wait_for_selector("#hdb_keep", state="visible")
    assert "nothing is saved yet" in page.inner_text("#hdb_progress") and not (lidb_dir / "bea.safetensors").exists()
    look(page, screenshots, "interrupted-1280-light")
    page.click("#hdb_keep")
    page.wait_for_selector("#hdb_result .hdb_after")
    assert (lidb_dir / "bea.safetensors").exists() and not page.is_visible("#hdb_keep")


def test_the_first_page(open_page, screenshots):
    for width, theme in VIEWS:
        page = open_page(width, theme)
        assert "One photo" in page.inner_text("#hdb_progress") and not page.is_visible("#hdb_actions")
        assert not page.is_visible("#hdb_job") and not page.is_visible("#hdb_face")
        assert not page.is_visible("#hdb_steps")
        page.click("#hdb_advanced >> text=Advanced")
        page.wait_for_selector("#hdb_steps", state="visible")
        look(page, screenshots, f"first-{width}-{theme}")


def test_no_face(page, wall, screenshots):
    drop(page, wall, "image/png")
    page.wait_for_selector("#hdb_faces >> text=No face was found")
    page.fill("#hdb_name textarea, #hdb_name input", next(names))
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal .hdb_error >> text=No face was found")
    look(page, screenshots, "no-face-1280-light")


def test_several_faces_and_a_click_on_another(open_page, two_faces, screenshots):
    page = open_page(800, "dark")
    drop(page, two_faces)
    page.wait_for_selector("#hdb_faces >> text=Several faces were found")
    assert page.get_attribute(".hdb_chosen", "data-face") == "1"
    page.click('.hdb_face[data-face="2"]')
    page.wait_for_selector('.hdb_chosen[data-face="2"]')
    look(page, screenshots, "several-800-dark")
    page.fill("#hdb_name textarea, #hdb_name input", "second")
    page.click("#hdb_quality >> text=Fast")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_progress [data-stage=finetune]")
    page.click("#hdb_interrupt")
    page.wait_for_selector("#hdb_progress [data-stage=cancelled]")


def test_a_file_that_is_no_picture(page, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    drop(page, tmp_path / "notes.txt", "text/plain")
    page.wait_for_selector("#hdb_faces .hdb_error >> text=no picture that can be read")


def test_no_photo_no_name_and_a_name_that_cannot_be(page, open_page, screenshots):
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal .hdb_error >> text=There is no photo yet")
    drop(page, SAMPLE_PHOTO)
    page.wait_for_selector("#hdb_faces img")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal .hdb_error >> text=There is no name yet")
    page.fill("#hdb_name textarea, #hdb_name input", "<b>a/b</b>")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal .hdb_error >> text=character that a tag cannot")
    assert "<b>a/b</b>" in page.inner_text("#hdb_refusal") and "One photo" in page.inner_text("#hdb_progress")
    look(page, screenshots, "bad-name-1280-light")
    drop(page, SAMPLE_PHOTO)
    page.wait_for_selector("#hdb_refusal .hdb_error", state="detached")


def test_a_job_that_the_server_does_not_know_is_forgotten(open_page):
    page = open_page(job="gone")
    page.wait_for_selector("#hdb_progress .hdb_welcome")


def sends_to_txt2img(page):
    """In the WebUI's place we put its prompt and its button; the script is the real one."""
    page.evaluate(
        """() => document.body.insertAdjacentHTML("beforeend",
            "<div id=txt2img_prompt><textarea>a castle</textarea></div><button id=hdb_send>Send</button>" +
            ["width", "height", "cfg_scale"].map(name => `<p id=txt2img_${name}><input value=7></p>`).join(""))"""
    )
    ours = page.input_value("#hdb_prompt textarea")
    for _ in range(2):
        page.dispatch_event("#hdb_send", "click")
    assert page.input_value("#txt2img_prompt textarea") == f"a castle, {ours}"
    sent = [page.input_value(f"#txt2img_{name} input") for name in ("width", "height", "cfg_scale")]
    assert sent == [str(SIZE), str(SIZE), "2"]


def test_the_last_result_is_there_after_a_refresh(page):
    fill(page, iterations=1)
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_result .hdb_after")
    sends_to_txt2img(page)
    page.reload()
    page.wait_for_selector(ANSWERED, state="attached")
    page.wait_for_selector("#hdb_result .hdb_after")
    assert page.is_visible("#hdb_actions")


def test_one_click_tries_it_and_a_name_that_is_taken_can_be_replaced(page):
    page.click("#hdb_try")
    page.wait_for_selector("#hdb_result .hdb_after")
    name = page.input_value("#hdb_name textarea, #hdb_name input")
    assert name.startswith("sample") and "Face used for training" in page.inner_text("#hdb_faces")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_refusal >> text=exists already")
    # Pages scroll by whole pixels.
    page.wait_for_function("document.querySelector('#hdb_replace').getBoundingClientRect().bottom < innerHeight + 1")
    page.type("#hdb_name textarea, #hdb_name input", "x")
    page.wait_for_selector("#hdb_replace", state="hidden")
    assert not page.is_visible("#hdb_refusal")
    page.fill("#hdb_name textarea, #hdb_name input", name)
    page.click("#hdb_personalize")
    page.click("#hdb_replace")
    page.wait_for_selector("#hdb_progress [data-stage=finetune]")
    page.wait_for_selector("#hdb_progress [data-stage=done]", state="attached")


def border(page, person):
    return page.evaluate(f"getComputedStyle(document.querySelector('[data-person={person}]')).borderColor")


def test_my_people_are_renamed_deleted_and_brought_back(page, lidb_dir, screenshots):
    fill(page, "zoe", iterations=1)
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_people [data-person=zoe]")
    plain = border(page, "zoe")
    page.click("#hdb_people [data-person=zoe]")
    page.wait_for_selector("#hdb_person_actions", state="visible")
    assert border(page, "zoe") != plain, "the card that the buttons are for can be told apart"
    page.click("#hdb_person_send")
    page.wait_for_function("document.querySelector('#hdb_prompt textarea').value.includes('<lidb:zoe:1>')")
    page.fill("#hdb_person_name textarea, #hdb_person_name input", "zora")
    page.click("#hdb_person_rename")
    page.wait_for_selector("#hdb_people [data-person=zora]")
    look(page, screenshots, "people-1280-light")
    page.click("#hdb_people [data-person=zora]")
    page.wait_for_selector("#hdb_person_actions", state="visible")
    page.click("#hdb_person_delete")
    page.wait_for_selector("#hdb_people [data-person=zora]", state="detached")
    assert not (lidb_dir / "zora.safetensors").exists()
    page.click("#hdb_person_undo")
    page.wait_for_selector("#hdb_people [data-person=zora]")
    assert (lidb_dir / "zora.safetensors").exists()
