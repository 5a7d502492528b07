"""A recogniser that reads latents: says whose face it is without decoding a picture, so a training can ask it.

    python -m training.latent_recogniser DATA_DIR FACES_DIR CHECKPOINT_RUN OUT_DIR [--steps 1500] [--shifts]

It learns to see in the checkpoint's latents what the recogniser SFace sees in the pictures; CHECKPOINT_RUN holds
latents.npy. The trainings take it as an identity loss; no measurement uses it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityNet as LatentRecogniser
from hyperdreambooth_ext.hypernet.latent_identity import moved, recognition_losses, softened

from .captions import PHOTO
from .faces import FIRST_TRAINING_IDENTITY
from .loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "faces", "checkpoint_run", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shifts", action="store_true", help="see the faces mirrored and moved by a latent, too")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.data / "index.jsonl").read_text().splitlines()]
    names = [json.loads(line)["photo"] for line in (args.faces / "photos.jsonl").read_text().splitlines()]
    teacher = dict(zip(names, np.load(args.faces / "sface.npy").astype(np.float32), strict=True))
    latents = np.load(args.checkpoint_run / "latents.npy", mmap_mode="r")
    photos = [i for i, row in enumerate(rows) if row["style"] == PHOTO]
    usable = np.array([i for i in photos if rows[i]["identity"] >= FIRST_TRAINING_IDENTITY])
    unseen = np.array([i for i in photos if rows[i]["identity"] < FIRST_TRAINING_IDENTITY])
    torch.manual_seed(0)
    network = LatentRecogniser(args.dropout)

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(usable, args.batch, replace=False)
        people = torch.tensor([rows[i]["identity"] for i in chosen])
        wanted = torch.from_numpy(np.stack([teacher[rows[i]["photo"]] for i in chosen]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            shown = softened(torch.from_numpy(latents[chosen]).float(), rng)
            features = network(moved(shown, rng) if args.shifts else shown)
        return recognition_losses(features, wanted, people)

    average = train(args.out, network, losses, steps=args.steps, lr=1e-3, weight_decay=args.weight_decay).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "latent_recogniser.safetensors")
    with torch.no_grad():
        features = average(torch.from_numpy(latents[unseen]).float()).numpy()
    wanted = np.stack([teacher[rows[i]["photo"]] for i in unseen])
    others = np.array([rows[i]["identity"] for i in unseen])
    cosine = features @ wanted.T
    cosine[np.equal.outer([rows[i]["photo"] for i in unseen], [rows[i]["photo"] for i in unseen])] = -1
    print("unseen people: cosine", float((features * wanted).sum(1).mean()), "rank-1 against another photo",
          float((others[cosine.argmax(1)] == others).mean()))  # fmt: skip


if __name__ == "__main__":
    main()
