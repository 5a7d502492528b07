"""How well people are told apart by photos, by pictures through the autoencoder, and from one kind to the other.

    python -m benchmarks.soft_pictures

An autoencoder makes pictures soft, and an encoder that learned from them may read somebody else out of a photo.
"""

import torch
import torch.nn.functional as F

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.images.tensors import to_tensor
from hyperdreambooth_ext.shipped import CHECKPOINT, HYPERNETWORK

from .people import SYNTHETIC, synthetic

PEOPLE = 100


@torch.no_grad()
def features(host: DiffusersHost) -> dict[str, torch.Tensor]:
    """Of two photos of each person, first the ones and then the others: "sharp" as they are, "soft" as the autoencoder
    gives them back."""
    people = synthetic(SYNTHETIC, PEOPLE, host.default_size)
    images = to_tensor([person.crop for person in people] + [person.others[0] for person in people])
    soft = [host.decode_latents(host.encode_images(batch)).clamp(-1, 1) for batch in images.split(8)]
    embedder = FaceEmbedder()
    return {
        "sharp": torch.cat([embedder.features(batch) for batch in images.split(8)]),
        "soft": torch.cat([embedder.features(batch) for batch in soft]),
    }


def rank1(features: torch.Tensor, known: torch.Tensor) -> float:
    """The share of people whose one picture, in `features`, is nearest to their own other one, in `known`."""
    decoder = load_hypernetwork(HYPERNETWORK).decoder
    ones, others = (F.normalize(decoder.identity(of), dim=-1) for of in (features.chunk(2)[0], known.chunk(2)[1]))
    return float(((ones @ others.T).argmax(1) == torch.arange(len(ones))).float().mean())


def main() -> None:
    """Print the three shares, and how far soft pictures' features spread relative to photos'."""
    seen = features(DiffusersHost(CHECKPOINT))
    for one, other in (("sharp", "sharp"), ("soft", "soft"), ("soft", "sharp")):
        print(f"{one} among {other}: rank-1 {rank1(seen[one], seen[other]):.2f}")
    spread = float((seen["soft"].mean(1).std(0) / seen["sharp"].mean(1).std(0)).median())
    print(f"spread of soft features: {spread:.2f} of sharp ones'")


if __name__ == "__main__":
    main()
