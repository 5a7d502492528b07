"""What the trainings see: people, packed and unpacked, and photos in several versions."""

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from training import pack
from training.captions import PHOTO
from training.checkpoint import VERSIONS, latents_of, noise_schedule
from training.faces import gathered
from training.held_out import loss_of
from training.models import Autoencoder, InnerAutoencoder
from training.photos import Photos, varied

USES = (("train", PHOTO), ("train", "oil painting"), ("measure", PHOTO))


def test_a_varied_photo_shows_nothing_from_beyond_its_frame() -> None:
    gray = varied(torch.full((4, 3, 64, 64), -0.5), np.random.default_rng(0))
    assert torch.allclose(gray.amin((2, 3)), gray.amax((2, 3)), atol=1e-5)
    assert not torch.allclose(gray[0], gray[1], atol=0.01)


def test_a_varied_photo_is_still_the_same_picture() -> None:
    x = torch.linspace(-0.8, 0.8, 64)
    picture = torch.stack([x.expand(64, 64), x[:, None].expand(64, 64), 0 * x.expand(64, 64)])[None]
    for seed in range(20):
        moved = varied(picture, np.random.default_rng(seed))
        assert 0.005 < (moved - picture).abs().mean() < 0.25


def test_trained_photos_have_versions_and_other_pictures_have_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (3, 256, 256, 3), dtype=np.uint8))
    rows = [f'{{"landmarks": {[0] * 10}, "use": "{use}", "style": "{style}"}}' for use, style in USES]
    (tmp_path / "index.jsonl").write_text("\n".join(rows))
    torch.manual_seed(0)
    model = InnerAutoencoder(Autoencoder()).eval()
    latents = latents_of(Photos(tmp_path), model, 64, torch.zeros(4), torch.ones(4))
    assert latents.shape == (3, 2 * VERSIONS, 4, 8, 8)
    photo, styled, measured = (of.reshape(VERSIONS, 2, -1) for of in latents)
    assert len(np.unique(photo[:, 0], axis=0)) == VERSIONS
    assert (styled == styled[0]).all() and (measured == measured[0]).all()
    assert (photo[:, 0] != photo[:, 1]).any()


class KnowsThePictures(torch.nn.Module):
    """Predicts the very noise for those that it knows, and none for others."""

    def __init__(self, known: int, latents: torch.Tensor, alphas_cumprod: torch.Tensor) -> None:
        super().__init__()
        self.latents, self.alphas_cumprod, self.known = latents, alphas_cumprod, known

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        places = tokens[:, 0].repeat(len(noisy) // len(tokens))
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - alphas.sqrt() * self.latents[places]) / (1 - alphas).sqrt()
        return noise * (places < self.known).view(-1, 1, 1, 1)


def test_the_loss_on_held_out_pictures_says_what_is_known_of_them() -> None:
    torch.manual_seed(0)
    alphas, latents = noise_schedule(), torch.randn(60, 4, 8, 8)
    tokens = torch.arange(60)[:, None]
    knowing = [loss_of(KnowsThePictures(known, latents, alphas), latents, tokens, alphas, 5.0) for known in (60, 30, 0)]
    assert knowing[0] < 1e-6 < knowing[1] < knowing[2]
    assert knowing[1] == loss_of(KnowsThePictures(30, latents, alphas), latents, tokens, alphas, 5.0)


def people(folder: Path, first: int, ages: list[int]) -> Path:
    """A folder of generated people, labeled: one photo of each of these ages."""
    (folder / "photos").mkdir(parents=True)
    rng, lines, said = np.random.default_rng(first), [], []
    for identity, age in enumerate(ages, first):
        photo = f"{identity:05d}_0.jpg"
        cv2.imwrite(str(folder / "photos" / photo), rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        feature = rng.standard_normal(128)
        feature = [round(float(x), 3) for x in feature / np.linalg.norm(feature)]
        lines.append({"photo": photo, "identity": identity, "landmarks": [0] * 10, "sface": feature, "moved": {}})
        said.append({"photo": photo, "age": age, "glasses": 1})
    (folder / "photos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "attributes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    return folder


def test_further_people_change_no_word_for_the_looks_of_the_first(tmp_path: Path) -> None:
    first, more = people(tmp_path / "first", 300, [30] * 40), people(tmp_path / "more", 4000, [30] * 40)
    alone, both = gathered([first])[0], gathered([first, more])[0]
    assert [row["looks"] for row in alone] == [row["looks"] for row in both[:40]]
    assert len({row["looks"] for row in both}) > 40


@pytest.mark.skipif(not cv2.haveImageWriter("photo.avif"), reason="this OpenCV writes no AVIF")
def test_packed_people_are_read_like_the_folder_that_they_came_from(tmp_path: Path, monkeypatch) -> None:
    folder = people(tmp_path / "made", 300, [30, 27, 50, 40])
    monkeypatch.setattr("sys.argv", ["pack", str(folder), str(tmp_path / "people.tar"), "--quality", "90"])
    pack.main()
    with tarfile.open(tmp_path / "people.tar") as tar:
        tar.extractall(tmp_path / "back", filter="data")
    (rows, features), (back, again) = gathered([folder]), gathered([tmp_path / "back"])
    assert [(row["identity"], row["age"], row["looks"]) for row in back] == [
        (row["identity"], row["age"], row["looks"]) for row in rows
    ]
    assert len(back) == 3 and np.allclose(features, again, atol=1e-3)
    assert cv2.imread(back[0]["file"]).shape == (256, 256, 3)
