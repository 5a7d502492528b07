"""The sub-tab "Build hypernetwork" in a real browser."""

from hyperdreambooth_ext.shipped import HYPERNETWORK
from tests.browser.test_tab import look


def test_the_sub_tab_shows_what_is_there_and_says_what_is_wrong(page, screenshots):
    open_tab(page, "hdb_build_tab", "Build hypernetwork")
    page.wait_for_selector(f"#hdb_build_shelf >> text={HYPERNETWORK.name}")
    assert page.is_visible("#hdb_build_start") and not page.is_visible("#hdb_personalize")
    page.fill("#hdb_build_faces input", "2")
    page.press("#hdb_build_faces input", "Tab")
    page.click("#hdb_build_start")
    page.wait_for_selector("#hdb_build_status [role=alert] >> text=Faces: at least 8")
    assert page.is_enabled("#hdb_build_start") and page.is_disabled("#hdb_build_pause")
    assert not page.is_visible("#hdb_build_use")
    look(page, screenshots, "build-1280-light")
    open_tab(page, "hdb_personalize_tab", "Personalize")
    assert page.is_visible("#hdb_name")


def open_tab(page, name, title):
    """gradio 5 names a tab's button, and has a second one out of sight; gradio 3 has one in a bar of its own."""
    page.click(f"#{name}-button, .tab-nav button:has-text('{title}')")
