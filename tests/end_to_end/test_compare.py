"""The comparison with other methods, at its smallest: every method learns, and the command writes all that it says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.compare.aesthetic import image_head
from benchmarks.compare.method import PROMPT, Task, Watch
from benchmarks.compare.rows import ROWS
from benchmarks.compare.table import _seconds_to_reach, _with_end, best_rate
from benchmarks.judges import VERSION
from benchmarks.people import SYNTHETIC, synthetic_person
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.sampling.sampler import Sampling

ROOT = Path(__file__).parents[2]
# One row for each way to learn; the others differ from them in a number.
METHODS = (
    "HyperDreamBooth", "DreamBooth", "Textual Inversion", "LoRA, rank 4", "WebUI hypernetwork", "Aesthetic gradients",
    "k = 1", "only hypernetwork",
)  # fmt: skip


@pytest.fixture(scope="module")
def untouched(tiny):
    return tiny.host()


@pytest.fixture(scope="module")
def head(untouched, tiny):
    return image_head(untouched, tiny.hypernetwork(), 4, Sampling(steps=1))


def denoised(host: DiffusersHost) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        return host.predict(latents, torch.tensor([600]), host.encode_prompts([PROMPT]))


@pytest.mark.parametrize("row", METHODS)
def test_what_a_method_learned_can_be_kept_applied_and_taken_out(row, untouched, tiny, head, tmp_path):
    host, method = tiny.host(), ROWS[row]
    person = synthetic_person(SYNTHETIC, 0, host.default_size)
    task = Task(host, tiny.hypernetwork(), person, torch.randn(2, 4, 8, 8), head)
    watch = Watch({2})
    learned = method.learn(task, method.sweep[-1] if method.sweep else None, 2, watch)
    assert len(watch.snapshots) == (row != "only hypernetwork") and watch.seconds() > 0
    assert learned.save(tmp_path).stat().st_size > 100
    before = denoised(untouched)
    changes = []
    for multiplier in (0.5, 1.0):
        with learned.applied(untouched, multiplier):
            changes.append(float((denoised(untouched) - before).norm()))
        assert torch.equal(denoised(untouched), before)
    assert 0 < changes[0] < changes[1]
    for _, _, snapshot in watch.snapshots:
        with snapshot.applied(untouched, 1.0):
            assert float((denoised(untouched) - before).norm()) == pytest.approx(changes[1], rel=1e-3)


def test_the_clock_stands_still_while_a_snapshot_is_taken():
    times = iter([0.0, 5.0, 5.0, 25.0, 26.0])
    watch = Watch({1}, lambda: next(times))
    watch(1, lambda: None)
    assert watch.snapshots == [(1, 5.0, None)] and watch.seconds() == 6.0


def test_the_rate_that_is_taken_is_the_most_alike_of_those_that_heed_the_style(tmp_path):
    class Known:
        def of(self, features, person):
            return features[0][0], 0.0

    for lr, distance, style in ((0.1, 0.3, 0.2), (0.2, 0.5, 0.6), (0.4, 0.4, 0.9)):
        (tmp_path / str(lr)).mkdir()
        at = {"1.0": {"features": [[distance]]}, "0.8": {"styles": [style]}}
        result = {"version": VERSION, "cell": {"person": 0}, "at": at}
        (tmp_path / str(lr) / "0.result.json").write_text(json.dumps(result))
    assert best_rate(Known(), tmp_path, (0.1, 0.2, 0.4)) == 0.4
    assert best_rate(Known(), tmp_path / "no sweep", (0.1, 0.2, 0.4)) == 0.2


def test_the_time_to_a_likeness_lies_between_two_snapshots_or_is_that_of_the_only_one():
    curve = [{"seconds": 10.0, "distance": 0.8}, {"seconds": 30.0, "distance": 0.4}]
    assert _seconds_to_reach(curve, 0.6) == pytest.approx(20) and _seconds_to_reach(curve, 0.3) is None
    alone = {"curve": [], "seconds": 0.2, "at": {"1.0": {"distance": 0.5}}}
    assert _seconds_to_reach(_with_end(alone), 0.6) == 0.2


@pytest.mark.slow
def test_the_command_measures_writes_and_goes_on_where_it_was(tiny, tmp_path):
    rows = ["HyperDreamBooth", "Textual Inversion"]
    small = "--first 1 --sweep-people 0 --scale 0.002 --picture-steps 1 --prior 2 --gallery 3 --multipliers 0.8 1"
    command = [sys.executable, "-m", "benchmarks.compare", str(tmp_path), *small.split(), "--rows", *rows]
    command += ["--processes", "2", "--checkpoint", str(tiny.checkpoint), "--hypernetworks", str(tiny.folder)]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    everything = json.loads((tmp_path / "compare.json").read_text())
    assert list(everything["rows"]) == rows and all(f"| {row} |" in printed for row in rows)
    for figures in everything["rows"].values():
        assert figures["seconds"] > 0 and figures["peak_megabytes"] >= figures["loaded_megabytes"] > 100
        assert figures["bytes"] > 100 and 0 < figures["at"]["1.0"]["distance"] < 2
        assert 0 <= figures["at"]["0.8"]["style"] <= 1 and figures["at"]["1.0"]["diversity"] > 0
    for name in ("frontier", "time", "size", "sheet"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).std() > 5
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "person 0" in printed and "person 0" not in again and (tmp_path / "compare.md").read_text() in again
