"""The evaluation at its smallest: it samples, judges, writes, and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def evaluate(out):
    command = [sys.executable, "-m", "benchmarks.evaluate", str(out), "--rows", "none", "--first", "2"]
    return subprocess.run([*command, "--identities", "3"], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_judges_writes_and_goes_on_where_it_was(tmp_path):
    assert evaluate(tmp_path).returncode == 0
    first = (tmp_path / "none" / "00000.json").stat().st_mtime_ns
    again = evaluate(tmp_path)
    assert again.returncode == 0 and (tmp_path / "none" / "00000.json").stat().st_mtime_ns == first
    rows = json.loads((tmp_path / "evaluate.json").read_text())["rows"]
    photo, coded, sampled = rows["the photo itself"], rows["the photo through the autoencoder"], rows["none"]
    assert photo["rank1"] == photo["sharpness"] == 1 and 0 < coded["sharpness"] < 0.8 and 0 < sampled["sharpness"] < 0.8
    assert photo["fid"] < coded["fid"] < sampled["fid"] and sampled["fid_to_none"] == 0 < coded["fid_to_none"]
    assert photo["copy"] > coded["copy"] > sampled["copy"]
    assert len(sampled["distances"]) == 2 and 0 <= sampled["style"] <= 1
    assert (tmp_path / "evaluate.md").read_text() in again.stdout
    assert np.asarray(Image.open(tmp_path / "evaluate.png").convert("L")).std() > 5
    (tmp_path / "none" / "00000.json").write_text(json.dumps({"styles": [1.0], "features": [[0.0] * 128]}))
    refused = evaluate(tmp_path)
    assert refused.returncode != 0 and "in another way than today" in refused.stderr
