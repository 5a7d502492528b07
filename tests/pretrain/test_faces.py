"""No face is sampled twice, and each is cut as the recognizer was shown faces."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.images.face import FACE, HEAD, choose_face, find_faces
from hyperdreambooth_ext.pretrain.context import Context
from hyperdreambooth_ext.pretrain.faces import gather
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.pretrain.processes import Processes
from hyperdreambooth_ext.pretrain.prompts import noise_seed
from hyperdreambooth_ext.pretrain.store import Folder

PEOPLE = Path(__file__).parents[2] / "benchmarks" / "people"


class SecondOfTwo(Processes):
    """One of two processes, without the other."""

    def __init__(self) -> None:
        super().__init__(1, 2)

    def wait(self) -> None:
        """Nobody comes."""


def seeds_of(folder: Folder) -> list[int]:
    """The noise that each face was sampled from."""
    seeds = []
    for shard in sorted(folder.faces.glob("*.tar")):
        with tarfile.open(shard) as tar:
            seeds += [json.load(tar.extractfile(name))["seed"] for name in tar.getnames() if name.endswith(".json")]
    return seeds


def test_a_search_that_one_process_began_goes_on_in_two_with_new_faces(face_host, tmp_path):
    options = BuildOptions(faces=8, held_out=2, sample_steps=4, sample_batch=4)
    folder = Folder(tmp_path)
    context = Context(folder, options, face_host, FaceEmbedder())
    store = gather(context, 8)
    tried = store.next_number()
    assert store.tried_by_others(1) == 0 and store.tried_by_others(2) == tried
    store = gather(replace(context, processes=SecondOfTwo()), 12)
    assert len(store) == 10, "its half of what is missing"
    seeds = seeds_of(folder)
    assert len(set(seeds)) == len(seeds) == 10
    assert set(seeds[8:]).isdisjoint(noise_seed(number, 0) for number in range(tried)), "what was tried is left alone"


def test_faces_are_cut_as_the_recognizer_was_shown_them(host, tmp_path):
    sizes = []
    for framing in (FACE, HEAD):
        embedder = FaceEmbedder()
        embedder.framing = framing
        options = BuildOptions(photos=str(PEOPLE), faces=1, held_out=1, size=192)
        store = gather(Context(Folder(tmp_path / str(framing.eyes)), options, host, embedder), 1)
        sizes.append(choose_face(find_faces(store.crop(0))).size)
    assert sizes[1] < 0.85 * sizes[0]
