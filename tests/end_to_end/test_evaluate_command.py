"""The evaluation at its smallest: it samples, judges, writes, and goes on where it was."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks import evaluate
from benchmarks.evaluate import main
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.sampling.sampler import Sampling


def test_the_command_judges_writes_and_goes_on_where_it_was(tmp_path, capsys, judges, monkeypatch):
    monkeypatch.setattr(evaluate, "Judges", lambda: judges)
    monkeypatch.setattr(evaluate, "Sampling", partial(Sampling, steps=8))
    command = [str(tmp_path), "--rows", "none", "--first", "2", "--identities", "3"]
    main(command)
    first = (tmp_path / "none" / "00000.json").stat().st_mtime_ns
    capsys.readouterr()
    main(command)
    assert (tmp_path / "none" / "00000.json").stat().st_mtime_ns == first
    rows = json.loads((tmp_path / "evaluate.json").read_text())["rows"]
    photo, coded, sampled = rows["the photo itself"], rows["the photo through the autoencoder"], rows["none"]
    assert photo["rank1"] == photo["sharpness"] == 1 and 0 < coded["sharpness"] < 0.8 and 0 < sampled["sharpness"] < 0.8
    assert photo["fid"] < coded["fid"] < sampled["fid"] and sampled["fid_to_none"] == 0 < coded["fid_to_none"]
    assert photo["copy"] > coded["copy"] > sampled["copy"]
    assert len(sampled["distances"]) == 2 and 0 <= sampled["style"] <= 1
    assert (tmp_path / "evaluate.md").read_text() in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "evaluate.png").convert("L")).std() > 5
    (tmp_path / "none" / "00000.json").write_text(json.dumps({"styles": [1.0], "features": [[0.0] * 128]}))
    with pytest.raises(UserError, match="in another way than today"):
        main(command)
