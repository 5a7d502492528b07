"""How far what is learned from sampled faces reaches (`benchmarks.reading`)."""

import numpy as np
import pytest
import torch

from benchmarks import reading
from benchmarks.reading import Known
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.pretrain.store import Folder


def people(count: int, noise: float, seed: int, shift: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    """Features [n, 4, 160] that hold 128 numbers of somebody linearly, beside noise, and those numbers."""
    mixing = np.random.default_rng(0).normal(size=(128, 160))
    rng = np.random.default_rng(seed)
    who = rng.normal(size=(count, 128))
    features = (who @ mixing)[:, None] + noise * 128**0.5 * rng.normal(size=(count, 4, 160)) + shift
    return torch.from_numpy(features), who


def sampled(count: int, noise: float) -> Known:
    features, who = people(count, noise, 1)
    return Known(features, {"sampled faces": who})


def photographed(noise: float) -> Known:
    features, who = people(reading.PEOPLE, noise, 2, shift=5.0)
    return Known(features, {"photos": who, "other photos": who + np.random.default_rng(3).normal(size=who.shape)})


def test_what_features_hold_is_read_and_whom_they_share_is_taken_off():
    rows = reading.readings(sampled(1000, 0.1), photographed(0.1))
    first, cosine = rows["800 faces"]["photos"]
    assert first == 1 and cosine > 0.95  # although all photos are shifted alike
    assert rows["800 faces"]["other photos"][1] == pytest.approx(cosine / 2**0.5, abs=0.05)


def test_more_faces_are_read_better_and_noise_is_not_read():
    rows = reading.readings(sampled(1000, 1.0), photographed(1.0))
    cosines = [row["sampled faces"][1] for row in rows.values()]
    assert list(rows) == ["200 faces", "400 faces", "800 faces"] and cosines == sorted(cosines)
    nothing = reading.readings(sampled(1000, 1000.0), photographed(1000.0))
    assert abs(nothing["800 faces"]["photos"][1]) < 0.1 and nothing["800 faces"]["photos"][0] < 0.1


def test_people_are_looked_for_where_they_stand():
    who = np.random.default_rng(0).normal(size=(30, 128))
    assert reading.rank1_and_cosine(who[20:], who, 20, common=who.mean(0)) == pytest.approx((1.0, 1.0))
    assert reading.rank1_and_cosine(who[20:], who, 10, common=who.mean(0))[0] == 0


def test_the_table_leaves_out_what_was_not_measured():
    text = reading.table("fitted on", {"a": {"x": (0.5, 0.25), "y": (1.0, 1.0)}, "b": {"y": (0.0, -0.125)}})
    assert text.splitlines()[2:] == ["| a | 0.50 / 0.250 | 1.00 / 1.000 |", "| b |  | 0.00 / -0.125 |"]


def test_too_few_faces_are_refused(tmp_path):
    (tmp_path / "faces").mkdir()
    with pytest.raises(UserError, match="0 faces, and fewer than 400"):
        reading.sampled(Folder(tmp_path), reading.Recognizer())


def test_a_folder_that_is_no_build_is_said_so_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["reading", str(tmp_path)])
    with pytest.raises(SystemExit, match="is no build's folder: there is no build.json in it"):
        reading.main()
