"""The real window, served by the real command, and a real browser.

The tests are skipped with a reason where Chromium or Playwright is missing, unless CI=1 or HDB_REQUIRE_BROWSER=1 asks
for them. HDB_SCREENSHOTS names a folder for the pictures of the page, HDB_CHROMIUM another browser's program.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# The script has asked the server for a job, and the server has answered: with one, or with the first page.
ANSWERED = '#hdb_progress [data-job]:not([data-job=""]), #hdb_progress [data-answered="yes"]'
REQUIRED = "1" in (os.environ.get("CI"), os.environ.get("HDB_REQUIRE_BROWSER")) or os.environ.get("CI") == "true"


def missing(reason: str):
    """Skip, or fail where a browser is required."""
    (pytest.fail if REQUIRED else pytest.skip)(reason)


def chromium() -> str | None:
    """The browser's program, None where there is none."""
    return os.environ.get("HDB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed: pip install playwright")
    program = chromium()
    if program is None:
        missing("Chromium is not installed: apt-get install chromium, or name one with HDB_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lidb_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("window") / "lidb"


@pytest.fixture(scope="session")
def url(browser, lidb_dir, tmp_path_factory):
    """The address of `ui`, running as a user runs it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("window") / "log.txt"
    command = [sys.executable, "-m", "hyperdreambooth_ext", "ui", "--port", str(port), "--out", str(lidb_dir)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(log.parent / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    with open(log, "w") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server, log)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(1800):
        if server.poll() is not None:
            raise AssertionError(f"ui ended:\n{log.read_text()}")
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"ui did not answer:\n{log.read_text()}")


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("HDB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(browser, url):
    """open_page(width=1280, theme="light", job="") -> the tab in a fresh browser profile that remembers that job."""
    contexts, errors = [], []

    def opened(width: int = 1280, theme: str = "light", job: str = ""):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        if job:
            context.add_init_script(f"localStorage.setItem('hdb_job', '{job}')")
        page = context.new_page()
        page.set_default_timeout(300_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/?__theme={theme}")
        page.wait_for_selector("#hdb_personalize")
        page.wait_for_selector(ANSWERED, state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(open_page):
    return open_page()
