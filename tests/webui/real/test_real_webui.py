"""The extension in a real WebUI 1.10 on the embedded checkpoint."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.bundled import NAME, SIZE

from .conftest import freeze
from .server import Server, refused

HIRES = {
    "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6, "hr_second_pass_steps": 6,
}  # fmt: skip


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.array_equal(one, other)


def test_the_embedded_checkpoint_loads_and_a_photo_is_learned(webui, anna):
    print(f"personalized in {anna['seconds']} s, {anna['bytes']} bytes, start: {anna['start']}")
    assert anna["start"] == "hypernetwork" and anna["bytes"] <= 120_000
    assert Path(anna["file"]) == webui.data / "models" / "Lora" / "anna.safetensors"


def test_the_tag_changes_the_picture_and_only_the_tag(webui, anna, blank):
    assert np.abs(webui.picture("a sks face <lidb:anna:1>") - blank).max() > 20
    assert same(webui.picture("a sks face"), blank)


@pytest.mark.parametrize("values", [":1", "", ":0.6", ":-0.5", ":0.5:0.9", ":te=0.5:unet=0.9", ":1:1:1", ":dyn=1"])
def test_it_equals_the_exported_lora_pixel_for_pixel(webui, anna_lora, values):
    one, other = (webui.picture(f"a sks face <{tag}{values}>") for tag in ("lidb:anna", f"lora:{anna_lora}"))
    assert same(one, other)


def test_the_file_works_as_a_lora_too(webui, anna):
    assert same(webui.picture("a sks face <lora:anna:0.7>"), webui.picture("a sks face <lidb:anna:0.7>"))


def test_hires_fix(webui, anna_lora, blank):
    one = webui.picture("a sks face <lidb:anna:0.8>", **HIRES)
    assert one.shape[0] == 192
    assert same(one, webui.picture(f"a sks face <lora:{anna_lora}:0.8>", **HIRES))
    assert not same(one, webui.picture("a sks face", **HIRES))
    assert same(webui.picture("a sks face"), blank)


def test_hires_fix_with_a_tag_of_its_own(webui, anna_lora):
    ours = webui.picture("a sks face", hr_prompt="a sks face <lidb:anna:1>", **HIRES)
    theirs = webui.picture("a sks face", hr_prompt=f"a sks face <lora:{anna_lora}:1>", **HIRES)
    assert same(ours, theirs)


@pytest.fixture(scope="module")
def ben(webui, photo, anna) -> dict:
    return webui.personalize(photo, "ben", quality="fast", start="zero", steps=8, seed=7)


def test_two_tags_and_a_lora_together(webui, anna_lora, ben):
    ben_lora = webui.export("ben")
    both = webui.picture("a sks face <lidb:anna:0.6> <lidb:ben:0.5>")
    assert same(both, webui.picture(f"a sks face <lora:{anna_lora}:0.6> <lora:{ben_lora}:0.5>"))
    # In the order of the tags' kinds: the WebUI collects one kind after the other.
    mixed = webui.picture(f"a sks face <lidb:anna:0.6> <lora:{ben_lora}:0.5>")
    assert np.abs(mixed - both).max() <= 1
    for alone in ("<lidb:anna:0.6>", "<lidb:ben:0.5>"):
        assert not same(both, webui.picture(f"a sks face {alone}"))


def test_training_leaves_nothing_behind(webui, photo, anna):
    """With a LiDB merged by the last picture, an optimization on, and the live model in use."""
    webui.picture("a sks face <lidb:anna:1>")
    before = webui.call("/probe/inside")
    assert before["merged"] > 100 and before["optimizer"]
    webui.personalize(photo, "passing", quality="fast", steps=2, preview_every=1)
    assert webui.call("/probe/inside") == before


def test_no_memory_in_the_middle_leaves_nothing_behind(webui, photo, anna):
    webui.picture("a sks face <lidb:anna:1>")
    before = webui.call("/probe/inside")
    webui.call("/probe/no-memory", post=True)
    status = webui.ended(webui.submit(photo, "never"))
    assert status["stage"] == "failed" and "memory" in status["message"]
    assert webui.call("/probe/inside") == before
    assert not (webui.data / "models" / "Lora" / "never.safetensors").exists()


def test_the_webuis_interrupt_ends_the_picture_that_waits_and_not_the_job(webui, photo, anna):
    webui.picture("a sks face <lidb:anna:1>")
    before = webui.call("/probe/inside")
    job = webui.submit(photo, "never", steps=500)
    while webui.call(f"/hyperdreambooth/v1/jobs/{job}")["step"] < 2:
        pass
    progress = webui.call("/sdapi/v1/progress")
    assert 0 < progress["progress"] < 1 and progress["state"]["job"] == "hyperdreambooth"
    wanted = {"prompt": "a sks face", "width": SIZE, "height": SIZE, "steps": 4}
    with ThreadPoolExecutor() as pool:
        picture = pool.submit(webui.call, "/sdapi/v1/txt2img", wanted)
        while not webui.call("/internal/pending-tasks")["size"]:
            pass
        webui.call("/sdapi/v1/interrupt", post=True)
        interrupted_at = webui.call(f"/hyperdreambooth/v1/jobs/{job}")["step"]
        while webui.call(f"/hyperdreambooth/v1/jobs/{job}")["step"] < interrupted_at + 2:
            pass
        webui.call(f"/hyperdreambooth/v1/jobs/{job}/interrupt", {"keep": False})
        status = webui.ended(job)
        assert status["stage"] == "cancelled" and status["can_keep"] and status["can_continue"]
        assert picture.result()["images"] == []
    assert webui.call("/probe/inside") == before


def test_a_retraining_under_the_same_name_takes_effect_at_once(webui, photo):
    webui.personalize(photo, "carla", quality="fast", start="zero", steps=6)
    first = webui.picture("a sks face <lidb:carla:1>")
    webui.personalize(photo, "carla", quality="fast", start="hypernetwork", steps=12, seed=5)
    second = webui.picture("a sks face <lidb:carla:1>")
    assert not same(first, second)
    assert same(second, webui.picture(f"a sks face <lora:{webui.export('carla')}:1>"))


def test_a_retraining_of_the_text_encoder_takes_effect_at_once(webui, photo):
    """The text condition is cached by the words of the prompt."""
    only_text = "a sks face <lidb:dora:te=1:unet=0>"
    webui.personalize(photo, "dora", quality="fast", start="zero", steps=6, text=True)
    first = webui.picture(only_text)
    webui.personalize(photo, "dora", quality="fast", start="zero", steps=6, text=True, seed=9, lr=0.1)
    second = webui.picture(only_text)
    assert not same(first, second)
    assert same(second, webui.picture(f"a sks face <lora:{webui.export('dora')}:te=1:unet=0>"))


def test_another_model_and_back(webui, anna, anna_lora, blank):
    before = webui.picture("a sks face <lidb:anna:1>")
    webui.call("/sdapi/v1/options", {"sd_model_checkpoint": "other"})
    elsewhere = webui.picture("a sks face <lidb:anna:1>")
    assert same(elsewhere, webui.picture(f"a sks face <lora:{anna_lora}:1>"))
    assert not same(elsewhere, webui.picture("a sks face")) and not same(elsewhere, before)
    webui.call("/sdapi/v1/options", {"sd_model_checkpoint": NAME})
    assert same(webui.picture("a sks face <lidb:anna:1>"), before)
    assert same(webui.picture("a sks face"), blank)


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        ("<lidb:nobody:1>", 'There is no LiDB "nobody" in the LoRA folder'),
        ("<lidb:anna:abc>", 'The multiplier "abc" of <lidb:anna:…> is no number'),
        ("<lidb:anna:1>", ""),
    ],
)
def test_what_a_tag_could_not_do_is_said_under_the_image(webui, anna, tag, sentence):
    webui.picture(f"a sks face {tag}")
    said = [comment for comment in webui.call("/probe/comments") if "LiDB" in comment or "lidb" in comment]
    assert (len(said) == 1 and sentence in said[0]) if sentence else not said


def test_the_infotext_carries_the_hash_and_pastes_back_under_another_name(webui, photo):
    # What no other file holds.
    webui.personalize(photo, "clara", quality="fast", steps=2, seed=9)
    _, infotext = webui.generate("a sks face <lidb:clara:0.8>")
    assert re.search(r'Lora hashes: "clara: [0-9a-f]{12}"', infotext)
    assert webui.call("/probe/pasted", {"text": infotext})["Prompt"] == "a sks face <lidb:clara:0.8>"
    renamed = infotext.replace("lidb:clara", "lidb:somebody").replace('"clara:', '"somebody:')
    assert webui.call("/probe/pasted", {"text": renamed})["Prompt"] == "a sks face <lidb:clara:0.8>"


def test_the_xyz_plot_has_both_axes(webui, anna, ben):
    labels = [option["label"] for option in _xyz_axes(webui)]
    assert {"[LiDB] name", "[LiDB] multiplier"} <= set(labels)
    arguments = [labels.index("[LiDB] multiplier"), "0.2, 0.9", [], labels.index("[LiDB] name"), "anna, ben", []]
    arguments += [0, "", [], False, True, False, False, False, False, False, 0, True]
    body = {"script_name": "x/y/z plot", "script_args": arguments}
    grid = webui.picture("a sks face <lidb:anna:1>", **body)
    rows = [[webui.picture(f"a sks face <lidb:{name}:{x}>") for x in (0.2, 0.9)] for name in ("anna", "ben")]
    assert same(grid, np.vstack([np.hstack(row) for row in rows]))


def _xyz_axes(webui) -> list[dict]:
    scripts = webui.call("/sdapi/v1/script-info")
    info = next(script for script in scripts if script["name"] == "x/y/z plot" and not script["is_img2img"])
    choices = next(argument["choices"] for argument in info["args"] if argument["label"] == "X type")
    return [{"label": choice if isinstance(choice, str) else choice[0]} for choice in choices]


def test_a_prompt_for_the_cards_page_is_served(webui, anna):
    card = webui.call("/sd_extra_networks/get-single-card?page=lidb&tabname=txt2img&name=anna")["html"]
    assert "&lt;lidb:anna:" in card and "cover-images?page=lidb&amp;item=anna" in card


def test_the_api_asks_for_credentials(webui, anna):
    for path in ("version", "lidbs", "jobs/x"):
        assert refused(lambda path=path: webui.call(f"/hyperdreambooth/v1/{path}", credentials="")) == 401
    assert refused(lambda: webui.call("/hyperdreambooth/v1/version", credentials="artist:wrong")) == 401
    assert refused(lambda: webui.call("/hyperdreambooth/v1/export", {"name": "anna"}, credentials="")) == 401
    assert webui.call("/hyperdreambooth/v1/version")["unfit"] == ""
    assert [entry["name"] for entry in webui.call("/hyperdreambooth/v1/lidbs")]
    assert "/hyperdreambooth/v1/personalize" in webui.call("/openapi.json")["paths"]


def test_reload_ui_changes_nothing(webui, anna, anna_lora, blank):
    before = webui.picture("a sks face <lidb:anna:1>")
    starts = webui.starts()
    webui.call("/probe/reload", post=True)
    webui.wait(starts + 1)
    assert same(webui.picture("a sks face <lidb:anna:1>"), before)
    assert same(webui.picture(f"a sks face <lora:{anna_lora}:1>"), before)
    assert same(webui.picture("a sks face"), blank)
    assert refused(lambda: webui.call("/hyperdreambooth/v1/version", credentials="")) == 401
    assert "anna" in [entry["name"] for entry in webui.call("/hyperdreambooth/v1/lidbs")]
    labels = [option["label"] for option in _xyz_axes(webui)]
    assert labels.count("[LiDB] name") == 1


def test_no_package_was_installed_moved_or_removed(webui, root, packages_before):
    assert freeze(root) == packages_before


def test_a_step_with_the_tag_costs_at_most_one_percent_more(webui, anna):
    """Pictures of 256 pixels without and with it in turn, in the process's own seconds; the median of their ratios."""

    def step(prompt: str) -> float:
        webui.picture(prompt, steps=16, width=256, height=256)
        # The first steps merge or restore the weights and warm the caches.
        return float(np.median(np.diff(webui.call("/probe/steps"))[3:]))

    ratios = [step("a sks face <lidb:anna:1>") / step("a sks face") for _ in range(8)]
    print(f"a step with the tag takes {np.median(ratios):.3f} of one without: {np.round(ratios, 3)}")
    assert np.median(ratios) <= 1.01


def test_the_start_takes_at_most_0_3_seconds_longer(root, webui, anna):
    """The second start (the first compiles Python to bytecode): install.py, script, callbacks and the tab."""
    with Server(root, webui.data) as again:
        records = again.call("/internal/profile-startup")["records"]
        tab = again.call("/probe/tab-seconds")
    own = {key: value for key, value in records.items() if "hyperdreambooth" in key or "entry.py" in key}
    print(f"{sum(own.values()) + tab:.3f} s, of it {tab:.3f} s the tab: {own}")
    assert len(own) == 3 and sum(own.values()) + tab <= 0.3
