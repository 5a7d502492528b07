"""The page of a real WebUI in a browser: the tab, the cards, and what is said under the image."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bundled import SIZE
from tests.conftest import OUTPUT

from .server import REPOSITORY

ANNA = '#txt2img_lidb_cards .card[data-name="anna"]'


@pytest.fixture(params=["dark", "light"])
def theme(request) -> str:
    return request.param


@pytest.fixture
def page(browser, webui, theme):
    with opened(browser, webui, theme, timeout=120_000) as page:
        yield page


@contextmanager
def opened(browser, webui, theme: str, timeout: float):
    """The WebUI's page, ready to be used; `timeout` in milliseconds for all that is waited for in it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(timeout)
    page.goto(f"{webui.url}/?__theme={theme}")
    page.wait_for_selector("#txt2img_prompt textarea")
    page.wait_for_timeout(2000)
    yield page
    page.close()


def shot(page, name: str) -> None:
    """Kept as test output: look at them."""
    folder = Path(os.environ.get("HDB_SCREENSHOTS", OUTPUT))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"webui-{name}.png", full_page=True)


def open_tab(page, tabs: str, name: str) -> None:
    page.click(f'{tabs} > .tab-nav button:has-text("{name}")')


def test_a_card_shows_the_face_and_inserts_the_tag(page, theme, webui, anna):
    open_tab(page, "#txt2img_extra_tabs", "LiDB")
    page.click("#txt2img_lidb_extra_refresh")
    card = page.locator(ANNA)  # not an element: the page is made anew
    card.wait_for()
    page.wait_for_function(f"document.querySelector('{ANNA} img').naturalWidth > 0")
    card.scroll_into_view_if_needed()
    shot(page, f"cards-{theme}")
    card.click()
    page.wait_for_function("document.querySelector('#txt2img_prompt textarea').value.includes('<lidb:anna:1>')")


def test_a_sentence_is_under_the_image(page, theme, webui, anna):
    for field, value in {"width": SIZE, "height": SIZE, "steps": 4}.items():
        page.fill(f"#txt2img_{field} input[type=number]", str(value))
    page.fill("#txt2img_prompt textarea", "a sks face <lidb:nobody:1>")
    page.click("#txt2img_generate")
    sentence = 'There is no LiDB "nobody" in the LoRA folder'
    page.wait_for_function(f"document.querySelector('#html_log_txt2img').innerText.includes('{sentence}')")


def test_the_tab_learns_a_photo_and_sends_the_tag_to_txt2img(page, theme, webui):
    open_tab(page, "#tabs", "HyperDreamBooth")
    page.set_input_files("#hdb_photo input[type=file]", REPOSITORY / "models" / "sample_photo.jpg")
    page.wait_for_selector("#hdb_faces img")
    page.fill("#hdb_name input, #hdb_name textarea", f"tab-{theme}")
    page.click("#hdb_quality label:has-text('Fast')")
    shot(page, f"tab-photo-{theme}")
    page.click("#hdb_personalize")
    page.wait_for_selector("#hdb_interrupt:visible")
    page.wait_for_selector('#hdb_progress [data-stage="finetune"]')
    page.wait_for_timeout(4000)
    shot(page, f"tab-progress-{theme}")
    page.wait_for_selector("#hdb_send:visible")
    page.wait_for_timeout(1000)
    shot(page, f"tab-result-{theme}")
    page.click("#hdb_send")
    page.wait_for_function(f"document.querySelector('#txt2img_prompt textarea').value.includes('<lidb:tab-{theme}:1>')")
    assert page.is_visible("#txt2img_prompt")
    sent = [page.input_value(f"#txt2img_{name} input[type=number]") for name in ("width", "height", "cfg_scale")]
    assert sent == [str(SIZE), str(SIZE), "2"]
    # Its card is there when one looks for it.
    open_tab(page, "#txt2img_extra_tabs", "LiDB")
    page.wait_for_selector(f'#txt2img_lidb_cards .card[data-name="tab-{theme}"]')
