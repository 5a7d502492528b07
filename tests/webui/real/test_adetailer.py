"""ADetailer in a real WebUI: each face of a picture becomes its own person. ADETAILER names its folder, and what it
needs of mediapipe is in the WebUI's environment."""

import base64
import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth_ext.images.sheet import jpeg
from tests.bundled import SIZE
from tests.conftest import OUTPUT

from .server import Server, prepare

ADETAILER = os.environ.get("ADETAILER")
pytestmark = pytest.mark.skipif(not ADETAILER, reason="ADETAILER names no folder of ADetailer")
SIDE = 2 * SIZE
# Its other detectors are downloaded. Without padding no face sees anything of the other.
DETECTOR = {
    "ad_model": "mediapipe_face_full", "ad_denoising_strength": 0.8, "ad_mask_blur": 4, "ad_dilate_erode": 16,
    "ad_use_inpaint_width_height": True, "ad_inpaint_width": SIZE, "ad_inpaint_height": SIZE,
    "ad_inpaint_only_masked_padding": 0,
}  # fmt: skip
# Around the middle, where the soft edges of the two faces may meet, nothing is compared.
SEAM = SIDE // 4
ANNA, BERT = "a sks face <lidb:anna:1>", "a sks face <lidb:bert:1>"


@pytest.fixture(scope="module")
def detailed(root, photo, tmp_path_factory):
    """A WebUI with ADetailer and two people."""
    data = tmp_path_factory.mktemp("adetailer")
    prepare(data)
    shutil.copytree(str(ADETAILER), data / "extensions" / "adetailer", ignore=shutil.ignore_patterns(".*"))
    with Server(root, data, "--skip-install", "--ad-no-huggingface") as webui:
        # The order of the prompts.
        webui.call("/sdapi/v1/options", {"ad_bbox_sortby": "Position (left to right)"})
        webui.personalize(photo, "anna", quality="fast")
        webui.personalize(jpeg(webui.picture("a face", seed=1).astype(np.uint8)), "bert", quality="fast")
        yield webui


@pytest.fixture(scope="module")
def strangers(detailed) -> Image.Image:
    """Two faces beside each other that are neither's."""
    picture = Image.new("RGB", (2 * SIDE, SIDE))
    for place in (0, 1):
        face = Image.fromarray(detailed.picture("a face", seed=6 + place, steps=20).astype(np.uint8))
        picture.paste(face.resize((SIDE, SIDE)), (place * SIDE, 0))
    return picture


def halves(webui, picture: Image.Image, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half of `picture` after ADetailer, and nothing else, with this prompt for its faces."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    body = {
        "init_images": [base64.b64encode(buffer.getvalue()).decode()], "prompt": "a face", "width": picture.width,
        "height": picture.height, "steps": 20, "cfg_scale": 4, "seed": 3, "sampler_name": "DPM++ 2M",
        # Switched on, without a pass over the whole picture before.
        "alwayson_scripts": {"ADetailer": {"args": [True, True, {**DETECTOR, "ad_prompt": prompt}]}},
    }  # fmt: skip
    answer = webui.call("/sdapi/v1/img2img", body)
    made = Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")
    # Kept as test output: look at it.
    OUTPUT.mkdir(exist_ok=True)
    made.save(OUTPUT / f"adetailer {prompt.translate(str.maketrans('<>:', '---'))}.png")
    return split(made)


def split(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(picture)
    return pixels[:, : SIDE - SEAM], pixels[:, SIDE + SEAM :]


def test_each_face_becomes_its_own_person_and_nobody_elses(detailed, strangers):
    both = halves(detailed, strangers, f"{ANNA} [SEP] {BERT}")
    before = split(strangers)
    anna, kept = halves(detailed, strangers, f"{ANNA} [SEP] [SKIP]")
    assert np.array_equal(kept, before[1]) and np.array_equal(both[0], anna)
    kept, bert = halves(detailed, strangers, f"[SKIP] [SEP] {BERT}")
    assert np.array_equal(kept, before[0]) and np.array_equal(both[1], bert)
    swapped = halves(detailed, strangers, f"{BERT} [SEP] {ANNA}")
    assert all(np.abs(one.astype(int) - other).max() > 20 for one, other in zip(both, swapped, strict=True))


def test_it_equals_the_exported_loras_pixel_for_pixel(detailed, strangers):
    anna, bert = (f"a sks face <lora:{detailed.export(name)}:1>" for name in ("anna", "bert"))
    ours = halves(detailed, strangers, f"{ANNA} [SEP] {BERT}")
    assert np.array_equal(ours, halves(detailed, strangers, f"{anna} [SEP] {bert}"))


def test_the_next_picture_has_nobody_of_it(detailed, strangers):
    blank = detailed.picture("a sks face")
    halves(detailed, strangers, f"{ANNA} [SEP] {BERT}")
    assert np.array_equal(detailed.picture("a sks face"), blank)
