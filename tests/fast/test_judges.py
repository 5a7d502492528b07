"""What judges pictures (`benchmarks.judges`): of photos that are broken on purpose, each judge that should fall, falls.

A recognizer with its box at a fixed place once found the right person in a heap of fragments.
"""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.evaluate import read_row
from benchmarks.inception import fid, kid
from benchmarks.judges import VERSION, Score
from benchmarks.nearest import PhotoIndex
from benchmarks.people import SYNTHETIC, synthetic
from benchmarks.recognizer import Gallery
from benchmarks.report import Reference, Row, distribution, summary, write_report
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.images.face import choose_face, find_faces

PEOPLE = 5
RAMP = (0.16600186, 5.2403526)  # FidHelper().extract_feats of a gray ramp: mean, largest


def blurred(crop):
    return cv2.GaussianBlur(crop, (0, 0), 2)


def fragments(crop):
    """Sixteen tiles of the photo in another order."""
    side = crop.shape[0] // 4
    tiles = crop.reshape(4, side, 4, side, 3).transpose(0, 2, 1, 3, 4).reshape(16, side, side, 3)
    mixed = tiles[np.random.default_rng(0).permutation(16)]
    return np.ascontiguousarray(mixed.reshape(4, 4, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(crop.shape))


def without_eyes(crop):
    """Skin where the eyes are, with a soft edge."""
    skin = crop[crop.shape[0] // 2 : -20, 40:-40].reshape(-1, 3).mean(0)
    eyes = np.zeros(crop.shape[:2], np.float32)
    for x, y in choose_face(find_faces(crop)).landmarks[:2].round().astype(int):
        cv2.circle(eyes, (int(x), int(y)), 12, 1.0, -1)
    eyes = cv2.GaussianBlur(eyes, (0, 0), 2)[..., None]
    return (crop * (1 - eyes) + skin * eyes).astype(np.uint8)


def gray(crop):
    return np.full_like(crop, 127)


BROKEN = (blurred, fragments, without_eyes, gray)


@pytest.fixture(scope="module")
def people():
    return synthetic(SYNTHETIC, PEOPLE, 128)


@pytest.fixture(scope="module")
def rows(people, judges):
    """The photos themselves, and each way to break them."""
    pictures = {"photos": [person.crop for person in people]}
    pictures |= {broken.__name__: [broken(person.crop) for person in people] for broken in BROKEN}
    return {name: Row(name, [[judges.score(one)] for one in shown], shown) for name, shown in pictures.items()}


@pytest.fixture(scope="module")
def reference(people, judges):
    return Reference(people, PEOPLE, judges)


@pytest.fixture(scope="module")
def table(rows, reference, judges):
    inception = {name: judges.inception.features(row.pictures) for name, row in rows.items()}
    return {name: summary(row, reference) | distribution(name, inception, reference) for name, row in rows.items()}


def test_photos_please_every_judge(table):
    photos = table["photos"]
    assert photos["rank1"] == photos["good_face"] == photos["sharpness"] == photos["eyes"] == 1
    assert photos["distance"] < 0.45 < 0.7 < photos["distance_to_others"]
    # The very photo that was learned is nothing but a copy of itself.
    assert photos["copy"] == pytest.approx(photos["distance"], abs=1e-3)


def test_a_picture_without_a_face_is_a_miss_as_far_away_as_strangers(table, reference):
    assert table["gray"]["rank1"] == table["gray"]["good_face"] == 0 and "sharpness" not in table["gray"]
    assert table["gray"]["distance"] == pytest.approx(reference.gallery.strangers, abs=1e-3)
    assert "copy" not in table["gray"]


def test_fragments_are_nobody_and_no_face(table):
    assert table["fragments"]["good_face"] <= 0.2 and table["fragments"]["rank1"] <= 0.2
    assert table["fragments"]["distance"] > table["photos"]["distance"] + 0.25


def test_blur_is_not_sharp_although_the_recognizer_and_the_detector_do_not_mind(table):
    assert table["blurred"]["good_face"] == 1 and table["blurred"]["sharpness"] < 0.4 and table["blurred"]["eyes"] < 0.4


def test_contrast_is_not_sharpness(people, judges):
    crop = people[0].crop
    flat = (crop.astype(np.float32) * 0.6 + 50).astype(np.uint8)
    assert judges.score(flat).sharpness == pytest.approx(judges.score(crop).sharpness, rel=0.1)


def test_eyes_that_are_painted_over_are_missed(table):
    eyeless, photos = table["without_eyes"], table["photos"]
    assert eyeless["eyes"] < 0.65 and eyeless["eyes"] < eyeless["sharpness"] - 0.2
    assert eyeless["distance"] > photos["distance"] + 0.05


@pytest.mark.parametrize("broken", [broken.__name__ for broken in BROKEN])
def test_no_broken_pictures_look_like_photos_as_a_set(table, broken):
    assert table[broken]["fid"] > 1.2 * table["photos"]["fid"] and table[broken]["kid"] > table["photos"]["kid"] + 5


def test_fid_is_that_of_the_covariances_and_kid_is_not_biased():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(400, 8)), rng.normal(size=(300, 8)) * 2 + 1
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    wanted = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root
    assert fid(one, other) == pytest.approx(wanted) and fid(one, one) == pytest.approx(0, abs=1e-9)
    same = [kid(rng.normal(size=(20, 8)), rng.normal(size=(20, 8))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5 and kid(one, other) > 5 * np.std(same)


def test_inception_gives_what_its_package_gives(judges):
    """The scaling to 299 pixels and the range of values are those of FidHelper."""
    ramp = np.repeat(np.linspace(0, 255, 128).round().astype(np.uint8)[None, :, None], 128, 0).repeat(3, 2)
    features = judges.inception.features([ramp])
    assert features.shape == (1, 2048)
    assert float(features.mean()) == pytest.approx(RAMP[0], rel=1e-3)
    assert float(features.max()) == pytest.approx(RAMP[1], rel=1e-3)


def test_a_row_keeps_what_was_seen_and_results_of_other_judges_are_refused(rows, people, tmp_path, judges):
    folder, people = tmp_path / "none", people[:2]
    folder.mkdir()
    photos = Row("the photo itself", rows["photos"].scores[:2], rows["photos"].pictures[:2])
    for i, (person, row) in enumerate(zip(people, (rows["gray"], photos), strict=True)):
        Image.fromarray(row.pictures[i]).save(folder / f"{person.name}.png")
        result = {"version": VERSION, "styles": [1.0], "pictures": [row.scores[i][0].as_json()]}
        (folder / f"{person.name}.json").write_text(json.dumps(result))
    read = read_row("none", people, tmp_path)
    assert read.scores[0][0] == Score(None, False) and read.styles == [1.0, 1.0]
    assert np.allclose(read.scores[1][0].features, photos.scores[1][0].features, atol=1e-5)
    write_report(tmp_path, people, [photos, read], judges, {})
    markdown = (tmp_path / "evaluate.md").read_text()
    assert "| rank-1 | distance |" in markdown and "| one good face | sharpness | eyes | FID |" in markdown
    assert json.loads((tmp_path / "evaluate.json").read_text())["rows"]["none"]["good_face"] == 0.5
    (folder / f"{people[0].name}.json").write_text(json.dumps({"styles": [], "features": [[0.0] * 128]}))
    with pytest.raises(UserError, match="another way"):
        read_row("none", people, tmp_path)


def test_the_nearest_photo_is_found_by_its_face_and_by_its_pixels(people, judges):
    index = PhotoIndex.of([person.others[0] for person in people] + [gray(people[0].crop)], judges.recognizer)
    features = judges.recognizer.features(people[2].crop)
    assert index.nearest_face(features)[0] == 2 and index.nearest_face(None) is None
    assert index.nearest_pixels(people[3].others[0]) == (3, 0)
    assert index.nearest_pixels(gray(people[0].crop))[0] == PEOPLE


def test_a_gallery_is_as_far_as_its_strangers_are_from_each_other():
    gallery = Gallery([np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])])
    assert gallery.strangers == 5 and gallery.match(None, 0).distance == 5
    assert gallery.match(np.array([0.0, 1.0]), 0).rank1 and not gallery.match(np.array([0.0, 1.0]), 1).rank1
