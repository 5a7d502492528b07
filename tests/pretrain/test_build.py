"""A checkpoint gets a hypernetwork of its own: from faces that it samples itself to the next personalization."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hyperdreambooth_ext.cli.cli import main
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import file_sha256
from hyperdreambooth_ext.hypernet.file import load_hypernetwork, read_config
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.pretrain.options import remembered
from hyperdreambooth_ext.pretrain.progress import Paused, Reporter
from hyperdreambooth_ext.pretrain.store import FaceStore
from hyperdreambooth_ext.shipped import CHECKPOINT, SAMPLE_PHOTO
from tests import half
from tests.pretrain.conftest import SMALL

ROOT = Path(__file__).parents[2]
SAFE = half.safe_on_the_processor()
UNSAFE = "this torch damages memory in bf16 on the processor"


@pytest.mark.slow
def test_from_its_own_faces_to_the_next_personalization(tmp_path, capsys):
    folder = tmp_path / "build"
    small = ["--faces", 8, "--held-out", 2, "--draw-steps", 4, "--batch", 2, "--steps", 2, "--width", 32]
    small += ["--recognizer-steps", 1, "--score-steps", 1, "--out", tmp_path / "models", "--json"]
    assert main(list(map(str, ["build", folder, *small]))) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    made = Path(summary["file"])
    assert made.parent == tmp_path / "models" and set(summary["score"]) >= {"likeness", "rank1"}
    config = read_config(made)
    assert f"faces that {CHECKPOINT.stem} sampled itself" in config.trained_on and config.checkpoint == CHECKPOINT.stem
    assert len(FaceStore(folder / "faces")) == 8 and (folder / "training" / "sheet.png").stat().st_size > 1000
    assert main(["inspect", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["trained_on"] == config.trained_on
    learn = ["personalize", str(SAMPLE_PHOTO), "--name", "anna", "--predict-only", "--out", str(tmp_path), "--json"]
    assert main([*learn, "--hypernetwork", str(made)]) == 0
    assert file.load(tmp_path / "anna.safetensors")[1].hypernetwork == file_sha256(made)[:10]


def test_training_moves_the_weights_and_keeps_the_best(run, tmp_path):
    made = run({"steps": 6})
    log = [json.loads(line) for line in (tmp_path / "run" / "training" / "log.jsonl").read_text().splitlines()]
    scores = [json.loads(line) for line in (tmp_path / "run" / "training" / "scores.jsonl").read_text().splitlines()]
    assert [line["step"] for line in scores] == [0, 2, 4, 6] and log[-1]["size"] > 0
    best = max(scores, key=lambda line: line["margin"])
    assert f"step {best['step']}" in read_config(made).held_out
    network = load_hypernetwork(made)
    assert network.decoder.head_weight.abs().sum() > 0 or best["step"] == 0
    # The latent identity nets as they were trained before the hypernetwork.
    trained = load_file(tmp_path / "run" / "recogniser" / "recogniser.safetensors")["head.weight"]
    assert torch.equal(network.identity_net.nets[0].head.weight, trained.half().float())


def test_a_finished_build_gives_its_last_weights_too(run, finished, tmp_path):
    last = run({"keep": "last"})
    state = torch.load(tmp_path / "run" / "training" / "state.pt", weights_only=True)["average"]
    assert "step 4" in read_config(last).held_out
    assert torch.equal(load_hypernetwork(last).decoder.positions, state["module.positions"].half().float())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not SAFE, reason=UNSAFE))])
def test_a_paused_build_ends_with_the_weights_of_one_that_was_not(run, tmp_path, precision):
    torch.set_num_threads(1)
    run({"precision": precision}, name="whole")
    for stop_at in (1, 3, 2):
        asked = iter(range(1000))
        with pytest.raises(Paused):
            run({"precision": precision}, Reporter(should_pause=lambda asked=asked, at=stop_at: next(asked) >= at))
    run({"precision": precision})
    assert same(tmp_path / "whole", tmp_path / "run")


def same(one: Path, other: Path) -> bool:
    """Whether both builds hold the same averaged weights after their last step, to the bit, and the same file."""
    states = [torch.load(folder / "training" / "state.pt", weights_only=True) for folder in (one, other)]
    assert states[0]["step"] == states[1]["step"]
    averages = [state["average"] for state in states]
    files = [next((folder / "out").glob("*.safetensors")).read_bytes() for folder in (one, other)]
    return all(torch.equal(averages[0][key], averages[1][key]) for key in averages[0]) and files[0] == files[1]


@pytest.mark.slow
def test_a_killed_build_ends_with_the_weights_of_one_that_was_not(run, tiny, tmp_path):
    torch.set_num_threads(1)
    wanted = {"target_steps": 2, "beta": 0.1}
    run(wanted, name="whole")
    run(wanted, name="run", until="faces")
    # In the first recognizer's training, in the second one's, and in the hypernetwork's between two savings.
    for stage, nth in (("recognizer", 1), ("recognizer", 3), ("train", 3)):
        child = subprocess.run(
            [sys.executable, "-m", "tests.pretrain.killed", tiny.checkpoint, tmp_path / "run", stage, str(nth)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert child.returncode == -9, child.stderr
    run(wanted)
    assert same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(run, tiny, tmp_path):
    run({"steps": 2}, name="one")
    run({"steps": 2}, name="two", until="faces")
    launched = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            "-m", "hyperdreambooth_ext", "build", str(tmp_path / "two"), "--checkpoint", str(tiny.checkpoint),
            "--device", "cpu", "--out", str(tmp_path / "two" / "out"), "--json",
        ],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-2000:]
    one, two = (torch.load(tmp_path / name / "training" / "state.pt")["average"] for name in ("one", "two"))
    # It starts at zero. Adam divides by the gradient's size: where that is nearly nothing, rounding decides about
    # single numbers, so all are asked together.
    one, two = one["module.head_weight"], two["module.head_weight"]
    assert float((one - two).norm()) < 0.02 * float(one.norm()) > 0, (one - two).norm() / one.norm()


def test_the_checkpoint_is_given_back_as_it_was(run, host):
    before = {key: value.clone() for key, value in host.unet.state_dict().items()}
    flags = [parameter.requires_grad for parameter in host.unet.parameters()]
    run({"steps": 2})
    assert all(torch.equal(before[key], value) for key, value in host.unet.state_dict().items())
    assert flags == [parameter.requires_grad for parameter in host.unet.parameters()]


@pytest.fixture
def remembered_as(tmp_path):
    """What is read of a build.json with these options."""

    def read(options: dict):
        options_file = tmp_path / "build.json"
        built_for = {"checkpoint": "a", "checkpoint_hash": "b", "architecture": "c"}
        options_file.write_text(json.dumps({"options": options, "built_for": built_for}))
        return remembered(options_file)[0]

    return read


def test_the_options_of_a_build_of_version_0_1_are_read(remembered_as):
    options = remembered_as(
        {"recogniser_steps": 7, "draw_steps": 9, "styled": 0.5, "basis": "random", "basis_people": 8, "words_weight": 0}
    )  # fmt: skip
    assert (options.recognizer_steps, options.sample_steps, options.prior_share) == (7, 9, 0.5)


@pytest.mark.parametrize("removed", [{"basis": "pca", "target_steps": 40}, {"words_weight": 5.0}])
def test_a_build_that_learned_in_a_way_that_there_is_no_more_says_so(remembered_as, removed):
    with pytest.raises(UserError, match="which there is no more: take another folder"):
        remembered_as(removed)


def test_a_build_that_version_0_1_had_begun_goes_on(run, finished_folder, tmp_path):
    asked = iter(range(1000))
    with pytest.raises(Paused):
        run(reporter=Reporter(should_pause=lambda: next(asked) >= 8))
    file = tmp_path / "run" / "training" / "state.pt"
    state = torch.load(file, weights_only=True)
    assert 0 < state["step"] < SMALL["steps"]
    # What it trained beside the hypernetwork: nothing is any more.
    state["beside"] = {"readers": {}, "optimizer": {}}
    for name in ("model", "average"):
        state[name] = {key.replace("identity_center", "identity_centre"): value for key, value in state[name].items()}
    torch.save(state, file)
    run()
    assert same(finished_folder, tmp_path / "run")
