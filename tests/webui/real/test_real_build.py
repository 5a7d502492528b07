"""A hypernetwork built in the sub-tab of a real WebUI, from the first face to its use."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hyperdreambooth_ext.files import file_sha256
from hyperdreambooth_ext.hypernet.file import read_config
from hyperdreambooth_ext.lidb.file import read_info
from tests.bundled import NAME

from .test_real_page import open_tab, opened, shot

FACES, HOURS, BATCH = 24, 0.05, 4


@pytest.fixture
def page(browser, webui):
    with opened(browser, webui, "light", timeout=600_000) as page:
        yield page


def test_a_build_gives_way_to_pictures_can_be_paused_and_its_file_is_used_next(page, webui, photo):
    shipped = set(hypernetworks(webui.data))
    start_build(page)

    page.wait_for_selector("#hdb_build_status b >> text=Training")
    with ThreadPoolExecutor(1) as pool:
        picture = pool.submit(webui.picture, "a face", steps=20)
        state(page, "waiting")
        shot(page, "build-waiting")
        # It does not wait for the build's end.
        assert picture.result(60).std() > 10
    state(page, "running")
    further(page, step_now(page))

    page.click("#hdb_build_pause")
    state(page, "paused")
    paused_at = step_now(page)
    page.wait_for_timeout(5000)
    assert step_now(page) == paused_at
    page.click("#hdb_build_resume")
    state(page, "running")
    further(page, paused_at)
    shot(page, "build-training")

    state(page, "done", timeout=40 * 60_000)
    shot(page, "build-done")
    assert set(hypernetworks(webui.data)) == shipped, "only the user puts it in the place of another"
    page.click("#hdb_build_use")
    page.wait_for_selector("#hdb_build_use", state="hidden")
    (made,) = set(hypernetworks(webui.data)) - shipped
    page.wait_for_selector(f"#hdb_build_shelf >> text={made.name}")
    config = read_config(made)
    assert config.checkpoint == NAME and f"{FACES} faces" in config.trained_on and config.held_out
    learned = webui.personalize(photo, "built", quality="fast")
    assert read_info(Path(learned["file"])).hypernetwork == file_sha256(made)[:10]


def start_build(page) -> None:
    """A build that takes minutes: enough to show the page, far too little to learn from."""
    open_tab(page, "#tabs", "HyperDreamBooth")
    page.click("#tab_hyperdreambooth .tab-nav button:has-text('Build hypernetwork')")
    for field, value in {"faces": FACES, "hours": HOURS}.items():
        page.fill(f"#hdb_build_{field} input", str(value))
    page.click("#hdb_build_advanced .label-wrap")
    page.fill("#hdb_build_batch input", str(BATCH))
    page.press("#hdb_build_batch input", "Tab")
    page.click("#hdb_build_start")
    state(page, "running")


def state(page, name: str, **options) -> None:
    page.wait_for_selector(f'#hdb_build_status [data-build="{name}"]', **options)


def step_now(page) -> int:
    """The step that the page tells."""
    return int(page.inner_text("#hdb_build_status .hdb_count").split("/")[0])


def further(page, step: int) -> None:
    """Until the page tells of a later step."""
    told = "document.querySelector('#hdb_build_status .hdb_count')"
    page.wait_for_function(f"parseInt({told}?.innerText) > {step}")


def hypernetworks(data: Path) -> list[Path]:
    return sorted((data / "extensions" / "hyperdreambooth" / "models").glob("*-hypernetwork.safetensors"))
