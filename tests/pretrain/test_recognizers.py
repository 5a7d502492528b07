"""The latent identity nets of a build, and the identities that they learn."""

import numpy as np
import pytest
import torch

from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.pretrain.prepare import Prepared
from hyperdreambooth_ext.pretrain.store import FaceStore, Folder

FACES = 12


@pytest.fixture
def prepared(prepared_folder) -> Prepared:
    return Prepared(Folder(prepared_folder), FACES)


def test_the_identities_of_a_build_are_what_its_faces_do_not_share(prepared):
    everyone = np.arange(FACES)
    alike = prepared.rows("identities", everyone)
    apart = prepared.identities(everyone)
    others = ~torch.eye(FACES, dtype=torch.bool)
    assert abs(float((apart @ apart.T)[others].mean())) < 0.15 < float((alike @ alike.T)[others].mean())
    assert torch.allclose(apart.norm(dim=-1), torch.ones(FACES))


def test_a_builds_file_knows_the_identities_that_its_nets_know(finished_folder, prepared):
    network = load_hypernetwork(next((finished_folder / "out").glob("*.safetensors")))
    assert network.config.centered and network.config.identity_nets == 2
    crops = [FaceStore(finished_folder / "faces").crop(face) for face in range(4)]
    known = network.identities(to_tensor(crops))
    assert torch.allclose(known, prepared.identities(np.arange(4)), atol=0.02)
