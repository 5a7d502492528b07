"""The tab of a fork in Chromium: from photo to picture, and the smallest build of a hypernetwork."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.lidb.safetensors_bytes import metadata_of
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.sampling.sampler import Sampling, sample
from hyperdreambooth_ext.shipped import CHECKPOINT, SAMPLE_PHOTO
from tests.browser.conftest import FLAGS, chromium
from tests.webui.real.column import SHORT, SIZE, Found
from tests.webui.real.server import Server
from tests.webui.real.test_real_page import open_tab, opened, shot

FACES = 8
BUILD = BuildOptions(
    faces=FACES, held_out=2, batch=2, steps=1, evaluate_every=1, score_steps=1, recognizer_steps=1, size=64, width=16,
    depth=1, iterations=1, prior_share=0.0,
)  # fmt: skip


def visit(server: Server) -> Iterator[Found]:
    """What the page does, in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield from visited(server, browser)
        browser.close()


def visited(server: Server, browser: Browser) -> Iterator[Found]:
    """What the page does; screenshots are kept as those of the other tests."""
    errors: list[str] = []
    with opened(browser, server, "light", timeout=900_000) as page:
        page.on("pageerror", lambda error: errors.append(error.stack))
        yield "from photo to picture in the page", photo_to_picture(page)
        begin_build(server.data)
        yield "build", build(page)
    yield "errors in the page", errors
    result = server.personalize(SAMPLE_PHOTO.read_bytes(), "built", **SHORT | {"start": "hypernetwork"})
    yield "start with the hypernetwork that was built", result["start_reason"]


def photo_to_picture(page: Page) -> str:
    """Drop, personalize, send, generate; the prompt of the picture."""
    open_tab(page, "#tabs", "HyperDreamBooth")
    page.wait_for_timeout(2000)
    shot(page, "1-tab")
    page.set_input_files("#hdb_photo input[type=file]", SAMPLE_PHOTO)
    page.wait_for_selector("#hdb_faces img")
    page.fill("#hdb_name input, #hdb_name textarea", "page")
    page.click("#hdb_quality label:has-text('Fast')")
    page.click("#hdb_advanced .label-wrap")
    for option, value in {"steps": 2, "lr": 0.3, "size": 64, "rank": 1, "preview_every": 2, "pictures": 1}.items():
        page.fill(f"#hdb_{option} input", str(value))
        page.press(f"#hdb_{option} input", "Tab")
    page.check("#hdb_overwrite input")
    page.wait_for_timeout(1000)
    shot(page, "2-photo")
    page.click("#hdb_personalize")
    page.wait_for_selector('#hdb_progress [data-stage="finetune"]')
    page.wait_for_timeout(3000)
    shot(page, "3-progress")
    page.wait_for_selector("#hdb_send:visible")
    page.wait_for_timeout(1500)
    shot(page, "4-result")
    page.click("#hdb_send")
    page.wait_for_function("document.querySelector('#txt2img_prompt textarea').value.includes('<lidb:page:1>')")
    for field, value in SIZE.items():
        page.fill(f"#txt2img_{field} input[type=number]", str(value))
        page.press(f"#txt2img_{field} input[type=number]", "Tab")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_gallery img")
    page.wait_for_timeout(3000)
    shot(page, "5-picture")
    open_tab(page, "#txt2img_extra_tabs", "LiDB")
    page.wait_for_selector('#txt2img_lidb_cards .card[data-name="page"]')
    shot(page, "6-card")
    return page.input_value("#txt2img_prompt textarea")


def build(page: Page) -> str:
    """Go on with the build that `begin_build` has begun; what is said at its end."""
    open_tab(page, "#tabs", "HyperDreamBooth")
    page.click("#tab_hyperdreambooth .tab-nav button:has-text('Build hypernetwork')")
    page.wait_for_selector('#hdb_build_status [data-build="paused"]')
    shot(page, "7-build-begun")
    page.click("#hdb_build_resume")
    page.wait_for_selector('#hdb_build_status [data-build="done"], #hdb_build_status [data-build="failed"]')
    page.wait_for_timeout(1000)
    shot(page, "8-build")
    said = page.inner_text("#hdb_build_status .hdb_note")
    if page.is_visible("#hdb_build_use"):
        page.click("#hdb_build_use")
        page.wait_for_selector("#hdb_build_use", state="hidden")
    return said


def begin_build(data: Path) -> None:
    """A build of the smallest kind as if it was paused: the tab asks for more than a processor does in minutes."""
    made_for = json.loads(metadata_of(data / "models" / "Lora" / "page.safetensors", 1 << 20)["lidb"])
    checkpoint, hash = made_for["checkpoint"], made_for["checkpoint_hash"]
    folder = data / "models" / "hyperdreambooth" / "builds" / f"{checkpoint}-{hash}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    built_for = {"checkpoint": checkpoint, "checkpoint_hash": hash, "architecture": made_for["architecture"]}
    options = asdict(BUILD) | {"photos": str(faces(data / "faces"))}
    (folder / "build.json").write_text(json.dumps({"options": options, "built_for": built_for}))


def faces(folder: Path) -> Path:
    """A folder of photos of people whom the bundled checkpoint invents."""
    if not folder.is_dir():
        folder.mkdir()
        host = DiffusersHost(CHECKPOINT)
        for seed in range(2 * FACES):
            Image.fromarray(sample(host, "a face", Sampling(12, seed=seed))).save(folder / f"{seed}.png")
    return folder
