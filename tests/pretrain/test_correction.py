"""The recognizers go on learning while they teach: from who is really seen in the drawings."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hyperdreambooth_ext.hypernet.embedder import Eyes, as_images
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.latent_recognizer import untaught_readers
from hyperdreambooth_ext.hypernet.likeness import identities_of_images
from hyperdreambooth_ext.pretrain.correction import Correction
from hyperdreambooth_ext.pretrain.folder import Folder
from hyperdreambooth_ext.pretrain.prepare import Prepared
from hyperdreambooth_ext.pretrain.processes import Processes
from hyperdreambooth_ext.pretrain.store import FaceStore

FACES = 12


@pytest.fixture
def prepared(prepared_folder) -> Prepared:
    return Prepared(Folder(prepared_folder), FACES)


def test_it_learns_who_is_seen_in_drawings_that_no_face_looks_like(host, prepared):
    torch.manual_seed(0)
    readers = untaught_readers(2).requires_grad_(False)
    eyes = Eyes()
    correction = Correction(readers, host, eyes, prepared, np.arange(2, FACES), slice(0, 4), Processes(), 0)
    # Upside down nobody looks like this, and the one who looks at pictures has an opinion all the same.
    drawings = prepared.rows("latents", np.arange(2, 6))[:, 0].float().flip(-2)
    wanted = prepared.identities(np.arange(2, 6))

    def mistaken() -> float:
        seen = prepared.told_apart(eyes.identities(host.decode_latents(drawings).clamp(-1, 1)))
        return float((1 - F.cosine_similarity(readers(drawings), seen)).mean())

    before = mistaken()
    for step in range(12):
        correction.take(drawings, wanted)
        figures = correction.after_update(step)
    assert mistaken() < 0.6 * before
    assert figures["told"] == pytest.approx(float((readers(drawings) * wanted).sum(-1).mean()), abs=0.1)
    assert not any(parameter.requires_grad for parameter in readers.parameters())


def test_the_faces_of_a_build_are_told_apart_by_what_they_do_not_share(prepared):
    everyone = np.arange(FACES)
    alike = prepared.rows("identities", everyone)
    apart = prepared.identities(everyone)
    others = ~torch.eye(FACES, dtype=torch.bool)
    assert abs(float((apart @ apart.T)[others].mean())) < 0.15 < float((alike @ alike.T)[others].mean())
    assert torch.allclose(apart.norm(dim=-1), torch.ones(FACES))


def test_a_builds_file_knows_the_identities_that_its_recognizers_know(run, prepared, tmp_path):
    network = load_hypernetwork(run())
    assert network.config.centred and network.config.readers == 2
    crops = [FaceStore(tmp_path / "run" / "faces").crop(face) for face in range(4)]
    known = identities_of_images(network, as_images(crops))
    assert torch.allclose(known, prepared.identities(np.arange(4)), atol=0.02)


def test_steps_that_learn_from_targets_alone_correct_nothing(run, tmp_path):
    run({"target_steps": 2, "warm_up": 2, "steps": 4})
    log = [json.loads(line) for line in (tmp_path / "run" / "training" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4 and -1 <= log[-1]["seen"] <= 1
