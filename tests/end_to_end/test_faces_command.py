"""A checkpoint judged by the faces that it samples: the command samples, judges, writes, and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def faces(out, *options):
    command = [sys.executable, "-m", "benchmarks.faces", str(out), "--steps", "4", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_judges_a_checkpoint_and_goes_on_where_it_was(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.jpg").write_bytes((ROOT / "benchmarks" / "people" / f"0000{i}_0.jpg").read_bytes())
    Image.new("RGB", (64, 64)).save(photos / "no face.png")
    where = ("--photos", str(photos), "--nearest", str(photos))
    begun = faces(tmp_path / "out", "--count", "2", *where)
    assert begun.returncode == 0 and "2 of 2 pictures" in begun.stdout and "left out no face.png" in begun.stdout
    first = (tmp_path / "out" / "pictures" / "00000.png").stat().st_mtime_ns
    whole = faces(tmp_path / "out", "--count", "3", *where)
    assert whole.returncode == 0 and (tmp_path / "out" / "pictures" / "00000.png").stat().st_mtime_ns == first
    report = json.loads((tmp_path / "out" / "faces.json").read_text())
    assert report["pictures"] == 3 and report["size"] == 128
    sampled, real = report["rows"]["sampled"], report["rows"]["the photos"]
    assert real["good_face"] == real["sharpness"] == 1 and real["nearest"] < 0.01
    assert sampled["sharpness"] < 0.9 and sampled["fid"] > 50 and sampled["nearest"] > 0.4
    assert (tmp_path / "out" / "faces.md").read_text() in whole.stdout
    assert np.asarray(Image.open(tmp_path / "out" / "faces.png").convert("L")).std() > 5
    other = faces(tmp_path / "out", "--count", "3", "--cfg", "2", *where)
    assert other.returncode != 0 and "another checkpoint or other settings" in other.stderr
