"""A thousand LiDBs in a real WebUI: the list, and the page of cards in a browser: what it takes is printed."""

import time
from contextlib import contextmanager

import pytest

from hyperdreambooth_ext.lidb import file

from .test_real_page import open_tab, shot

COUNT = 1000

# Scrolls the cards from top to bottom as the wheel does; the milliseconds between frames.
SCROLL = """async () => {
    const cards = document.querySelector('#txt2img_lidb_cards'), frames = [];
    await new Promise(done => {
        let last = performance.now();
        const step = now => {
            frames.push(now - last);
            last = now;
            const before = cards.scrollTop;
            cards.scrollTop += 400;
            cards.scrollTop === before ? done() : requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    });
    return frames.slice(1);
}"""


@pytest.fixture
def thousand(webui, anna):
    """COUNT copies of a LiDB with its face, each under a name of its own."""
    folder = webui.data / "models" / "Lora" / "many"
    lidb, info = file.load(webui.data / "models" / "Lora" / "anna.safetensors")
    folder.mkdir()
    for number in range(COUNT):
        copy = folder / f"person{number:04}.safetensors"
        file.save(copy, lidb, info)
    yield
    for copy in folder.iterdir():
        copy.unlink()
    folder.rmdir()
    webui.call("/sdapi/v1/refresh-loras", post=True)


def test_a_thousand_lidbs_are_listed_shown_and_scrolled(webui, browser, thousand):
    with timed() as first:
        webui.call("/sdapi/v1/refresh-loras", post=True)
    with timed() as again:
        webui.call("/sdapi/v1/refresh-loras", post=True)
    with timed() as ours:
        listed = webui.call("/hyperdreambooth/v1/lidbs")
    assert len(listed) >= COUNT
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(webui.url)
    page.wait_for_selector("#txt2img_prompt textarea")
    page.wait_for_timeout(2000)
    open_tab(page, "#txt2img_extra_tabs", "LiDB")
    with timed() as shown:
        page.click("#txt2img_lidb_extra_refresh")
        page.wait_for_function(f"document.querySelectorAll('#txt2img_lidb_cards .card').length >= {COUNT}")
    page.wait_for_timeout(3000)
    frames = sorted(page.evaluate(SCROLL))
    shot(page, "cards-thousand")
    page.close()
    print(
        f"\n{COUNT} LiDBs: the WebUI's list {first.seconds:.2f} s, again {again.seconds:.2f} s; the extension's list "
        f"{ours.seconds:.2f} s; from Refresh to cards in the page {shown.seconds:.2f} s; scrolled in {len(frames)} "
        f"frames, half of them within {frames[len(frames) // 2]:.0f} ms, the longest {frames[-1]:.0f} ms"
    )
    assert len(frames) > 10


class Timed:
    seconds = 0.0


@contextmanager
def timed():
    result, began = Timed(), time.monotonic()
    yield result
    result.seconds = time.monotonic() - began
