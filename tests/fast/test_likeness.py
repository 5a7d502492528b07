"""Who is it: the identity vector that a recognizer taught the encoder, and how far apart two people are in it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.likeness_scale import scale
from benchmarks.people import SYNTHETIC, synthetic
from hyperdreambooth_ext.hypernet.embedder import likeness
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.shipped import HYPERNETWORK

from .test_hypernetwork import CONFIG


@pytest.fixture(scope="module")
def bundled() -> Hypernetwork:
    return load_hypernetwork(HYPERNETWORK)


def test_a_picture_is_exactly_like_itself(bundled):
    crop = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    assert likeness(bundled, crop, crop) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_people_that_nothing_was_trained_on_are_told_apart(bundled):
    people = synthetic(SYNTHETIC, 100, 128)

    seen, known = (bundled.identities(to_tensor(crops)) for crops in (
        [p.crop for p in people], [p.others[0] for p in people]))  # fmt: skip
    table = (seen @ known.T).numpy()
    own, strangers = table.diagonal(), table[~np.eye(len(people), dtype=bool)]
    found = (table.argmax(1) == np.arange(len(people))).mean()
    print(f"found {found:.2f}, own photos' 5th percentile {np.percentile(own, 5):.2f}, "
          f"strangers' 99th {np.percentile(strangers, 99):.2f}")  # fmt: skip
    assert likeness(bundled, people[0].crop, people[0].others[0]) == pytest.approx(table[0, 0], abs=1e-4)
    assert found >= 0.98 and np.percentile(own, 5) >= 0.765 and np.percentile(strangers, 99) <= 0.625


def test_an_encoder_that_no_recognizer_trained_has_no_identities():
    untaught = Hypernetwork(CONFIG).eval()
    crop = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="not trained by a recognizer"):
        likeness(untaught, crop, crop)


def test_the_identity_vector_alone_tells_the_decoder_who_it_is():
    torch.manual_seed(0)
    network = Hypernetwork(replace(CONFIG, identity_width=8)).eval()
    decoder = network.decoder
    decoder.identity_weight.normal_()
    with torch.no_grad():
        decoder.head_weight.normal_(0, 0.05)
    features = torch.randn(1, 4, network.encoder.channels)
    # The decoder's layers see both ways; silence the feature tokens and only the vector is left.
    with torch.no_grad():
        decoder.features_in.weight.zero_()
    one, other = decoder(features), decoder(features + torch.randn_like(features))
    assert not torch.allclose(one, other)


def test_the_scale_of_sampled_pictures_keeps_the_persons_own_photo_apart():
    people = synthetic(SYNTHETIC, 4, 128)
    own, strangers = scale([p.crop for p in people], [(2, people[2].crop), (0, people[0].others[0])])
    assert own[0] == pytest.approx(1, abs=1e-5) and own[1] > 0.7
    assert len(strangers) == 6 and strangers.max() < 0.62
