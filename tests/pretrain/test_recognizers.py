"""The latent identity nets go on learning beside the hypernetwork: the identity that its samples really have."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.pretrain.context import Context
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.pretrain.prepare import Prepared
from hyperdreambooth_ext.pretrain.recognizers import RecognizerTrainer
from hyperdreambooth_ext.pretrain.store import FaceStore, Folder

FACES = 12


@pytest.fixture
def prepared(prepared_folder) -> Prepared:
    return Prepared(Folder(prepared_folder), FACES)


def test_it_learns_the_identity_of_samples_that_no_face_looks_like(host, prepared):
    torch.manual_seed(0)
    net = LatentIdentityEnsemble.untrained(2).requires_grad_(False)
    embedder = FaceEmbedder()
    context = Context(prepared.folder, BuildOptions(), host, embedder)
    trainer = RecognizerTrainer(context, net, prepared, np.arange(2, FACES), slice(0, 4))
    # Upside down nobody looks like this, and the embedder has an identity for it all the same.
    samples = prepared.rows("latents", np.arange(2, 6))[:, 0].float().flip(-2)
    wanted = prepared.identities(np.arange(2, 6))

    def mistaken() -> float:
        known = prepared.centered(embedder.identities(host.decode_latents(samples).clamp(-1, 1)))
        return float((1 - F.cosine_similarity(net(samples), known)).mean())

    before = mistaken()
    for step in range(12):
        trainer.take(samples, wanted)
        figures = trainer.after_update(step)
    assert mistaken() < 0.6 * before
    assert figures["id_cos_latent"] == pytest.approx(float((net(samples) * wanted).sum(-1).mean()), abs=0.1)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_the_identities_of_a_build_are_what_its_faces_do_not_share(prepared):
    everyone = np.arange(FACES)
    alike = prepared.rows("identities", everyone)
    apart = prepared.identities(everyone)
    others = ~torch.eye(FACES, dtype=torch.bool)
    assert abs(float((apart @ apart.T)[others].mean())) < 0.15 < float((alike @ alike.T)[others].mean())
    assert torch.allclose(apart.norm(dim=-1), torch.ones(FACES))


def test_a_builds_file_knows_the_identities_that_its_nets_know(run, prepared, tmp_path):
    network = load_hypernetwork(run())
    assert network.config.centered and network.config.identity_nets == 2
    crops = [FaceStore(tmp_path / "run" / "faces").crop(face) for face in range(4)]
    known = network.identities(to_tensor(crops))
    assert torch.allclose(known, prepared.identities(np.arange(4)), atol=0.02)


def test_steps_that_learn_from_targets_alone_train_no_recognizer(run, tmp_path):
    run({"target_steps": 2, "warm_up": 2, "steps": 4})
    log = [json.loads(line) for line in (tmp_path / "run" / "training" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4 and -1 <= log[-1]["id_cos_image"] <= 1
