"""What the API's identity score amounts to on sampled pictures (`jobs/identity.py`): why the tab shows none.

    python -m benchmarks.likeness_scale OUT_DIR [--row hypernetwork+80]

OUT_DIR is what `evaluate` filled. The first picture of each person is compared, by the bundled encoder as in the
API, with the photo that it was learned from and with everybody else's.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.images.face import largest_face
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.shipped import HYPERNETWORK

from .people import SYNTHETIC, synthetic

SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--row", default="hypernetwork+80")
    args = parser.parse_args()
    people = synthetic(SYNTHETIC, 100, SIZE)
    files = {person.name: args.out / args.row / f"{person.name}.png" for person in people}
    numbers = [number for number, person in enumerate(people) if files[person.name].exists()]
    faces = [largest_face(np.asarray(Image.open(files[people[i].name]).convert("RGB")), SIZE) for i in numbers]
    found = [(number, face) for number, face in zip(numbers, faces, strict=True) if face is not None]
    own, strangers = scale([person.crop for person in people], found)
    print(f"{len(found)} pictures with a face, {len(numbers) - len(found)} without")
    for name, cosines in (("the person's own photo", own), ("everybody else's", strangers)):
        shares = np.percentile(cosines, [5, 25, 50, 75, 90, 95, 99])
        print(f"{name}: 5, 25, 50, 75, 90, 95, 99 % are below " + ", ".join(f"{share:.2f}" for share in shares))


def scale(photos: list[np.ndarray], faces: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of sampled faces, each with the number of its person, to that person's photo and to all the others."""
    network = load_hypernetwork(HYPERNETWORK)
    identities = network.identities(to_tensor([face for _, face in faces]))
    table = (identities @ network.identities(to_tensor(photos)).T).numpy()
    own = np.zeros(table.shape, dtype=bool)
    own[np.arange(len(faces)), [number for number, _ in faces]] = True
    return table[own], table[~own]


if __name__ == "__main__":
    main()
