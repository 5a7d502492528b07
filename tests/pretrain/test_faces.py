"""What a build sees in soft pictures, and that no picture is drawn twice."""

import json
import tarfile
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.people import SYNTHETIC, synthetic
from hyperdreambooth_ext.hypernet.embedder import Eyes, as_images
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.pretrain.faces import gather
from hyperdreambooth_ext.pretrain.folder import Folder
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.pretrain.processes import Processes
from hyperdreambooth_ext.pretrain.progress import Reporter
from hyperdreambooth_ext.pretrain.prompts import noise_seed
from hyperdreambooth_ext.shipped import HYPERNETWORK

PEOPLE = 100


@pytest.fixture(scope="module")
def seen(host):
    """Features of two photos of each person, first the ones and then the others: "sharp" as they are, and "soft" as
    the autoencoder gives them back."""
    people = synthetic(SYNTHETIC, PEOPLE, host.default_size)
    images = as_images([person.crop for person in people] + [person.others[0] for person in people])
    with torch.no_grad():
        soft = [host.decode_latents(host.encode_images(batch)).clamp(-1, 1) for batch in images.split(8)]
    eyes = Eyes()
    return {
        "sharp": torch.cat([eyes.features(batch) for batch in images.split(8)]),
        "soft": torch.cat([eyes.features(batch) for batch in soft]),
    }


def cosines(features: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Of each person's one picture, in `features`, and everybody's other one, in `known`."""
    decoder = load_hypernetwork(HYPERNETWORK).decoder
    ones, others = (F.normalize(decoder.identity(of), dim=-1) for of in (features.chunk(2)[0], known.chunk(2)[1]))
    return ones @ others.T


def found(table: torch.Tensor) -> float:
    """The share of people whose nearest is their own."""
    return float((table.argmax(1) == torch.arange(len(table))).float().mean())


def test_soft_pictures_and_sharp_photos_are_two_worlds(seen):
    shares = {
        f"{one}, {other}": found(cosines(seen[one], seen[other]))
        for one, other in (("sharp", "sharp"), ("soft", "soft"), ("soft", "sharp"))
    }
    spread = float((seen["soft"].mean(1).std(0) / seen["sharp"].mean(1).std(0)).median())
    print(", ".join(f"{name}: {share:.2f}" for name, share in shares.items()), f"spread: {spread:.2f}")
    assert shares["soft, soft"] > shares["soft, sharp"] + 0.2 and spread < 0.7


class SecondOfTwo(Processes):
    """One of two processes, without the other."""

    rank, count = 1, 2


def seeds_of(folder: Folder) -> list[int]:
    """The noise that each face was drawn from."""
    seeds = []
    for shard in sorted(folder.faces.glob("*.tar")):
        with tarfile.open(shard) as tar:
            seeds += [json.load(tar.extractfile(name))["seed"] for name in tar.getnames() if name.endswith(".json")]
    return seeds


def test_a_search_that_one_process_began_goes_on_in_two_with_new_faces(host, tmp_path):
    options = BuildOptions(faces=8, held_out=2, draw_steps=4, draw_batch=4)
    folder, eyes = Folder(tmp_path), Eyes()
    store = gather(folder, options, host, eyes, Reporter(), Processes())
    drawn = store.next_number()
    assert store.tried_by_others(1) == 0 and store.tried_by_others(2) == drawn
    store = gather(folder, replace(options, faces=12), host, eyes, Reporter(), SecondOfTwo())
    assert len(store) == 10, "its half of what is missing"
    seeds = seeds_of(folder)
    assert len(set(seeds)) == len(seeds) == 10
    assert set(seeds[8:]).isdisjoint(noise_seed(number, 0) for number in range(drawn)), "what was tried is left alone"
