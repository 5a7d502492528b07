"""How far what is learned from a build's sampled faces reaches: to other sampled faces, and to photos.

    python -m benchmarks.reading BUILD [--hypernetwork FILE]

Before any training: a ridge regression from what a hypernetwork is shown of the sampled faces in the folder BUILD (the
encoder's features, averaged over the face) to dlib's identities of them. How well it reads faces that it was not fitted
on bounds what a hypernetwork can learn from them; whether more faces would help can be seen from fitting it on fewer.
With `--hypernetwork`: the same of the pictures that the embedded checkpoint makes with it.

"Cosine" is that of the identity that is read and dlib's, both less their mean over all identities; rank-1 goes by it.
The photos are those of `evaluate`, the one that was shown and another one.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.pretrain.options import remembered
from hyperdreambooth_ext.pretrain.prepare import Prepared
from hyperdreambooth_ext.pretrain.store import FaceStore, Folder
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many
from hyperdreambooth_ext.shipped import CHECKPOINT

from .evaluate import through_autoencoder
from .people import SYNTHETIC, synthetic
from .recognizer import Recognizer

PEOPLE = 100  # to be told apart, and as many faces to choose the ridge on
RIDGES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_BATCH = 8
SAMPLING = Sampling(steps=12)


@dataclass(frozen=True)
class Known:
    """`features` [n, tokens, channels] that a hypernetwork is given of n faces, and dlib's `identities` in pictures of
    them, each float64 [n, 128], by the pictures' name."""

    features: torch.Tensor
    identities: dict[str, np.ndarray]

    def some(self, some: slice) -> "Known":
        """A part of the faces."""
        return Known(self.features[some], {name: of[some] for name, of in self.identities.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder of a build, whose faces are sampled and prepared")
    parser.add_argument("--hypernetwork", type=Path, help="a hypernetwork of the embedded checkpoint")
    args = parser.parse_args()
    try:
        measure(Folder(args.build), args.hypernetwork)
    except UserError as error:
        sys.exit(str(error))


def measure(folder: Folder, hypernetwork: Path | None) -> None:
    """Print the tables. Raises UserError, FileError among them, for a build or a file that does not do."""
    begun = remembered(folder.options)
    if begun is None:
        raise UserError(f"{folder.path} is no build's folder: there is no {folder.options.name} in it.")
    host, embedder, recognizer = DiffusersHost(CHECKPOINT), FaceEmbedder(), Recognizer()
    faces = sampled(folder, recognizer)
    people = synthetic(SYNTHETIC, PEOPLE, host.default_size)
    sharp = [person.crop for person in people]
    soft = embedded([through_autoencoder(host, crop) for crop in sharp], embedder)
    shown = {"photos": sharp, "other photos": [person.others[0] for person in people]}
    photos = Known(soft, {name: dlib_identities(crops, recognizer) for name, crops in shown.items()})
    print(table("fitted on", readings(faces, photos)))
    if hypernetwork is not None:
        network = load_hypernetwork(hypernetwork)
        if not network.config.through_autoencoder:
            photos = replace(photos, features=embedded(sharp, embedder))
        print(table("pictures of", pictured(host, network, recognizer, faces, photos, begun[0].held_out)))


def sampled(folder: Folder, recognizer: Recognizer) -> Known:
    """The faces of a build. Raises UserError when they are too few, FileError when they are not prepared."""
    store = FaceStore(folder.faces)
    if len(store) < 4 * PEOPLE:
        raise UserError(f"{folder.path} has {len(store)} faces, and fewer than {4 * PEOPLE} say nothing.")
    features = Prepared(folder, len(store)).rows("features", np.arange(len(store)))[:, 0].float()
    crops = [store.crop(index) for index in range(len(store))]
    return Known(features, {"sampled faces": dlib_identities(crops, recognizer)})


def embedded(crops: list[np.ndarray], embedder: FaceEmbedder) -> torch.Tensor:
    """What a hypernetwork is given of aligned crops: features [n, tokens, channels]."""
    return torch.cat([embedder.features(to_tensor(crops[i : i + _BATCH])) for i in range(0, len(crops), _BATCH)])


def dlib_identities(pictures: list[np.ndarray], recognizer: Recognizer) -> np.ndarray:
    """dlib's identities, float64 [n, 128]; zeros, which are nobody, where no face is found."""
    found = [recognizer.features(picture) for picture in pictures]
    return np.stack([np.zeros(128) if features is None else features for features in found])


def readings(faces: Known, photos: Known) -> dict[str, dict[str, tuple[float, float]]]:
    """By how many faces the ridge was fitted on, and what it reads: (rank-1, cosine)."""
    test, chosen_on, rest = faces.some(slice(PEOPLE)), faces.some(slice(PEOPLE, 2 * PEOPLE)), slice(2 * PEOPLE, None)
    fitted_on = faces.some(rest)
    count, results = len(fitted_on.features), {}
    for some in (count // 4, count // 2, count):
        read = fitted(fitted_on.some(slice(some)), chosen_on)
        results[f"{some:,} faces"] = {
            name: rank1_and_cosine(read(known.features), identities)
            for known in (test, photos)
            for name, identities in known.identities.items()
        }
    return results


def fitted(faces: Known, chosen_on: Known) -> Callable[[torch.Tensor], np.ndarray]:
    """What reads from features [n, tokens, channels] dlib's identities, [n, 128]: a ridge regression on `faces`, as
    strong as is best for `chosen_on`."""
    x, y = _averaged(faces.features), faces.identities["sampled faces"]
    mean, spread, middle = x.mean(0), x.std(0) + 1e-6, y.mean(0)

    def white(features: torch.Tensor) -> np.ndarray:
        return (_averaged(features) - mean) / spread

    rows = white(faces.features)
    gram, shown, wanted = rows @ rows.T, white(chosen_on.features), chosen_on.identities["sampled faces"]

    def weights(ridge: float) -> np.ndarray:
        return rows.T @ np.linalg.solve(gram + ridge * len(rows) * np.eye(len(rows)), y - middle)

    best = min(map(weights, RIDGES), key=lambda w: np.square(shown @ w + middle - wanted).sum())
    return lambda features: white(features) @ best + middle


def pictured(
    host: DiffusersHost, network: Hypernetwork, recognizer: Recognizer, faces: Known, photos: Known, held_out: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """By whose face is sampled, one picture each, and what the picture is compared with: (rank-1, cosine)."""
    known = identities_of_samples(host, network, recognizer, faces.features[: held_out + PEOPLE])
    common = known.mean(0)
    among, results = faces.identities["sampled faces"][: len(known)], {}
    for name, some in (
        ("the build's held-out faces", slice(0, held_out)),
        ("its other faces", slice(held_out, len(known))),
    ):
        results[name] = {"sampled faces": rank1_and_cosine(known[some], among, some.start, common)}
    in_samples = identities_of_samples(host, network, recognizer, photos.features)
    results["photos"] = {name: rank1_and_cosine(in_samples, of) for name, of in photos.identities.items()}
    return results


@torch.no_grad()
def identities_of_samples(
    host: DiffusersHost, network: Hypernetwork, recognizer: Recognizer, features: torch.Tensor
) -> np.ndarray:
    """dlib's identities in a picture of each face with these features: float64 [n, 128]."""
    samples: list[np.ndarray] = []
    for first in range(0, len(features), _BATCH):
        theta = network.decoder(features[first : first + _BATCH])
        prompts, seeds = [network.config.prompt] * len(theta), range(first, first + len(theta))
        samples += sample_many(host, prompts, seeds, SAMPLING, [Applied(network.decoder.as_lidb(theta))])
    return dlib_identities(samples, recognizer)


def rank1_and_cosine(
    read: np.ndarray, known: np.ndarray, first: int = 0, common: np.ndarray | None = None
) -> tuple[float, float]:
    """Of identities that were read as `read` [n, 128], less what is `common` to them: the share that is nearest to its
    own among those `known` [m, 128], from number `first` on, and the mean cosine to its own."""
    cosines = _unit(read - (read.mean(0) if common is None else common)) @ _unit(known - known.mean(0)).T
    own = np.arange(len(read)) + first
    return float((cosines.argmax(1) == own).mean()), float(cosines[np.arange(len(read)), own].mean())


def table(title: str, results: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Markdown, rank-1 / cosine."""
    columns = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = [
        f"| {title} | {' | '.join(f'{name}: rank-1 / cosine' for name in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, row in results.items():
        cells = [f"{row[column][0]:.2f} / {row[column][1]:.3f}" if column in row else "" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _averaged(features: torch.Tensor) -> np.ndarray:
    return features.mean(1).double().numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
