"""A checkpoint judged by the faces that it samples: the command samples, judges, writes, and goes on where it was."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import faces_report
from benchmarks.faces import main
from benchmarks.people import SYNTHETIC
from hyperdreambooth_ext.errors import UserError


def test_the_command_judges_a_checkpoint_and_goes_on_where_it_was(tmp_path, capsys, judges, monkeypatch):
    monkeypatch.setattr(faces_report, "Judges", lambda: judges)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.jpg").write_bytes((SYNTHETIC / f"0000{i}_0.jpg").read_bytes())
    Image.new("RGB", (64, 64)).save(photos / "no face.png")
    command = [str(out), "--steps", "4", "--photos", str(photos), "--nearest", str(photos)]
    main([*command, "--count", "2"])
    printed = capsys.readouterr().out
    assert "2 of 2 pictures" in printed and "left out no face.png" in printed
    first = (out / "pictures" / "00000.png").stat().st_mtime_ns
    main([*command, "--count", "3"])
    assert (out / "pictures" / "00000.png").stat().st_mtime_ns == first
    report = json.loads((out / "faces.json").read_text())
    assert report["pictures"] == 3 and report["size"] == 128
    sampled, real = report["rows"]["sampled"], report["rows"]["the photos"]
    assert real["good_face"] == real["sharpness"] == 1 and real["nearest"] < 0.01
    assert sampled["sharpness"] < 0.9 and sampled["fid"] > 50 and sampled["nearest"] > 0.4
    assert (out / "faces.md").read_text() in capsys.readouterr().out
    assert np.asarray(Image.open(out / "faces.png").convert("L")).std() > 5
    with pytest.raises(UserError, match="another checkpoint or other settings"):
        main([*command, "--count", "3", "--cfg", "2"])
