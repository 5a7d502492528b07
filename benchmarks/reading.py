"""How far what is learned from a build's drawn faces reaches: to other drawn faces, and to photos.

    python -m benchmarks.reading BUILD [--hypernetwork FILE]

Before any training: a ridge regression from what a hypernetwork is shown of the drawn faces in the folder BUILD (the
encoder's features, averaged over the face) to who dlib sees in them. How well it reads faces that it was not fitted on
bounds what a hypernetwork can learn from them, and whether more faces would help can be seen from fitting it on fewer.
With `--hypernetwork`: the same of the pictures that the embedded checkpoint makes with it.

"Cosine" is that of what is read and what dlib sees, both less their mean over all people, "first" the share of people
who are the nearest of all by it. The photos are those of `evaluate`, the one that was looked at and another one.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth_ext.cli.models import CHECKPOINT
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.embedder import Eyes, as_images
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.pretrain.folder import Folder
from hyperdreambooth_ext.pretrain.options import remembered
from hyperdreambooth_ext.pretrain.prepare import Prepared
from hyperdreambooth_ext.pretrain.store import FaceStore
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from .evaluate import through_autoencoder
from .people import SYNTHETIC, synthetic
from .recognizer import Recognizer

PEOPLE = 100  # to be told apart, and as many faces to choose the ridge on
RIDGES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
AT_ONCE = 8
SAMPLING = Sampling(steps=12)


@dataclass(frozen=True)
class Seen:
    """`features` [n, tokens, channels] that a hypernetwork is given of n people, and who dlib sees in pictures of them,
    each float64 [n, 128], by the pictures' name."""

    features: torch.Tensor
    who: dict[str, np.ndarray]

    def some(self, some: slice) -> "Seen":
        """A part of the people."""
        return Seen(self.features[some], {name: who[some] for name, who in self.who.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder of a build, whose faces are drawn and prepared")
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
    host, eyes, recognizer = DiffusersHost(CHECKPOINT), Eyes(), Recognizer()
    faces = drawn(folder, recognizer)
    people = synthetic(SYNTHETIC, PEOPLE, host.default_size)
    sharp = [person.crop for person in people]
    soft = looked_at([through_autoencoder(host, crop) for crop in sharp], eyes)
    shown = {"photos": sharp, "other photos": [person.others[0] for person in people]}
    photos = Seen(soft, {name: who_is_shown(crops, recognizer) for name, crops in shown.items()})
    print(table("fitted on", readings(faces, photos)))
    if hypernetwork is not None:
        network = load_hypernetwork(hypernetwork)
        if not network.config.through_autoencoder:
            photos = replace(photos, features=looked_at(sharp, eyes))
        print(table("pictures of", pictured(host, network, recognizer, faces, photos, begun[0].held_out)))


def drawn(folder: Folder, recognizer: Recognizer) -> Seen:
    """The faces of a build. Raises UserError when they are too few, FileError when they are not prepared."""
    store = FaceStore(folder.faces)
    if len(store) < 4 * PEOPLE:
        raise UserError(f"{folder.path} has {len(store)} faces, and fewer than {4 * PEOPLE} say nothing.")
    features = Prepared(folder, len(store)).rows("features", np.arange(len(store)))[:, 0].float()
    crops = [store.crop(index) for index in range(len(store))]
    return Seen(features, {"drawn faces": who_is_shown(crops, recognizer)})


def looked_at(crops: list[np.ndarray], eyes: Eyes) -> torch.Tensor:
    """What a hypernetwork is given of aligned crops: features [n, tokens, channels]."""
    return torch.cat([eyes.features(as_images(crops[i : i + AT_ONCE])) for i in range(0, len(crops), AT_ONCE)])


def who_is_shown(pictures: list[np.ndarray], recognizer: Recognizer) -> np.ndarray:
    """Whom dlib sees, float64 [n, 128]."""
    return np.stack([recognizer.features(picture) for picture in pictures])


def readings(faces: Seen, photos: Seen) -> dict[str, dict[str, tuple[float, float]]]:
    """By how many faces the ridge was fitted on, and who is read: (share found first, cosine)."""
    test, chosen_on, rest = faces.some(slice(PEOPLE)), faces.some(slice(PEOPLE, 2 * PEOPLE)), slice(2 * PEOPLE, None)
    fitted_on = faces.some(rest)
    count, results = len(fitted_on.features), {}
    for some in (count // 4, count // 2, count):
        read = fitted(fitted_on.some(slice(some)), chosen_on)
        results[f"{some:,} faces"] = {
            name: found(read(seen.features), who) for seen in (test, photos) for name, who in seen.who.items()
        }
    return results


def fitted(faces: Seen, chosen_on: Seen) -> Callable[[torch.Tensor], np.ndarray]:
    """What reads from features [n, tokens, channels] whom dlib sees, [n, 128]: a ridge regression on `faces`, as
    strong as is best for `chosen_on`."""
    x, y = _averaged(faces.features), faces.who["drawn faces"]
    mean, spread, middle = x.mean(0), x.std(0) + 1e-6, y.mean(0)

    def white(features: torch.Tensor) -> np.ndarray:
        return (_averaged(features) - mean) / spread

    rows = white(faces.features)
    gram, shown, wanted = rows @ rows.T, white(chosen_on.features), chosen_on.who["drawn faces"]

    def weights(ridge: float) -> np.ndarray:
        return rows.T @ np.linalg.solve(gram + ridge * len(rows) * np.eye(len(rows)), y - middle)

    best = min(map(weights, RIDGES), key=lambda w: np.square(shown @ w + middle - wanted).sum())
    return lambda features: white(features) @ best + middle


def pictured(
    host: DiffusersHost, network: Hypernetwork, recognizer: Recognizer, faces: Seen, photos: Seen, held_out: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """By who is drawn, one picture each, and what the picture is compared with: (share found first, cosine)."""
    known = who_is_drawn(host, network, recognizer, faces.features[: held_out + PEOPLE])
    common = known.mean(0)
    among, results = faces.who["drawn faces"][: len(known)], {}
    for name, some in (
        ("the build's held-out faces", slice(0, held_out)),
        ("its other faces", slice(held_out, len(known))),
    ):
        results[name] = {"drawn faces": found(known[some], among, some.start, common)}
    seen = who_is_drawn(host, network, recognizer, photos.features)
    results["photos"] = {name: found(seen, who) for name, who in photos.who.items()}
    return results


@torch.no_grad()
def who_is_drawn(
    host: DiffusersHost, network: Hypernetwork, recognizer: Recognizer, features: torch.Tensor
) -> np.ndarray:
    """Whom dlib sees in a picture each of the people with these features: float64 [n, 128]."""
    drawings: list[np.ndarray] = []
    for first in range(0, len(features), AT_ONCE):
        theta = network.decoder(features[first : first + AT_ONCE])
        prompts, seeds = [network.config.prompt] * len(theta), range(first, first + len(theta))
        drawings += sample_many(host, prompts, seeds, SAMPLING, [Applied(network.decoder.as_lidb(theta))])
    return who_is_shown(drawings, recognizer)


def found(read: np.ndarray, who: np.ndarray, first: int = 0, common: np.ndarray | None = None) -> tuple[float, float]:
    """Of people who were read as `read` [n, 128], less what is `common` to them: the share that is nearest to
    themselves among `who` [m, 128], from number `first` on, and the mean cosine to themselves."""
    cosines = _unit(read - (read.mean(0) if common is None else common)) @ _unit(who - who.mean(0)).T
    own = np.arange(len(read)) + first
    return float((cosines.argmax(1) == own).mean()), float(cosines[np.arange(len(read)), own].mean())


def table(title: str, results: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Markdown, first / cosine."""
    columns = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = [
        f"| {title} | {' | '.join(f'{name}: first / cosine' for name in columns)} |",
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
