"""The documents' pictures of the tab in a real WebUI, made by the clicks of a user who learns a photo.

    WEBUI_PYTHON=PYTHON python -m tests.webui.real.pictures ROOT OUT [PHOTO]

ROOT is only read. OUT gets webui-progress, -result, -txt2img, -cards and -build as .webp. PHOTO, where it is given, is
learned too.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.browser.conftest import FLAGS, chromium

from .server import Server, prepare
from .test_real_build import start_build, state
from .test_real_page import open_tab, opened

LARGEST_BYTES = 60_000


def save(page: Any, out: Path, name: str, height: int = 820) -> None:
    """What the window shows, at the best quality that keeps the file small."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in range(90, 20, -5):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= LARGEST_BYTES:
            break
    (out / f"webui-{name}.webp").write_bytes(buffer.getvalue())


def learn(page: Any, out: Path) -> None:
    """From a photo to a picture in txt2img."""
    open_tab(page, "#tabs", "HyperDreamBooth")
    page.set_input_files("#hdb_photo input[type=file]", SAMPLE_PHOTO)
    page.wait_for_selector("#hdb_faces img")
    page.fill("#hdb_name input, #hdb_name textarea", "anna")
    page.click("#hdb_personalize")
    page.wait_for_function("+document.querySelector('#hdb_progress .hdb_bar')?.ariaValueNow > 50")
    save(page, out, "progress")
    page.wait_for_selector("#hdb_send:visible")
    save(page, out, "result", 900)
    page.click("#hdb_send")
    page.fill("#txt2img_batch_size input[type=number]", "4")
    page.click("#txt2img_generate")
    # Before that, its live preview.
    page.wait_for_selector("#txt2img_gallery .thumbnail-item img, #txt2img_gallery .thumbnails img")
    page.wait_for_selector("#txt2img_interrupt", state="hidden")
    save(page, out, "txt2img")


def cards(page: Any, out: Path) -> None:
    """The page of cards, and what a click on one puts into the prompt."""
    page.fill("#txt2img_prompt textarea", "")
    open_tab(page, "#txt2img_extra_tabs", "LiDB")
    page.click('#txt2img_lidb_cards .card[data-name="anna"]')
    save(page, out, "cards")


def main(root: str, out: str, second: str = "") -> None:
    """Make them all."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        prepare(Path(data))
        browser = playwright.chromium.launch(args=FLAGS, executable_path=chromium())
        with Server(Path(root), Path(data)) as webui, opened(browser, webui, "light", timeout=600_000) as page:
            if second:
                webui.personalize(Path(second).read_bytes(), "bert")
            learn(page, folder)
            cards(page, folder)
            start_build(page)
            state(page, "done")
            save(page, folder, "build", 1040)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
