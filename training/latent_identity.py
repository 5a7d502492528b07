"""Train a network that reads an identity off latents, so that a training can ask for it without decoding a picture.

    python -m training.latent_identity DATA CACHE OUT [--steps 3000] [--shifts] [--dropout 0.4]

It learns to see in the checkpoint's latents what the recognizer SFace sees in the pictures; CACHE is what
`training.checkpoint encode` wrote. The trainings take it for an identity loss; no measurement uses it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityNet, moved, recognition_losses, softened

from .captions import PHOTO
from .loop import Run, precision_of, train
from .models import SIZE
from .photos import Photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "cache", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of this call; the next one goes on")
    parser.add_argument("--whole", action="store_true", help="the learning rate falls before the minutes end")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--shifts", action="store_true", help="see the faces moved by a latent, too")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device, photos = torch.device(args.device), Photos(args.data)
    teacher = torch.from_numpy(np.load(args.data / "sface.npy").astype(np.float32)).to(device)
    latents = torch.from_numpy(np.load(args.cache / f"latents-{SIZE}.npy")).to(device)
    usable = np.array([i for i in photos.trained if photos.rows[i]["style"] == PHOTO])
    torch.manual_seed(0)
    network = LatentIdentityNet(args.dropout).to(device)

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(usable, args.batch, replace=False)
        identities = torch.tensor([photos.rows[i]["identity"] for i in chosen], device=device)
        place = torch.from_numpy(chosen).to(device)
        mirrored = torch.from_numpy(rng.integers(0, 2, args.batch)).to(device)
        shown = softened(latents[place, mirrored].float(), rng)
        return recognition_losses(network(moved(shown, rng) if args.shifts else shown), teacher[place], identities)

    run = Run(args.steps, 1e-3, args.minutes, args.whole, ema=0.995, precision=precision_of(device))
    average = train(args.out, network, losses, run, is_adamw=lambda name: "head" in name).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "latent_identity.safetensors")
    if not len(photos.held_out):
        return
    unseen = torch.from_numpy(photos.held_out).to(device)
    with torch.no_grad():
        cosine = average(latents[unseen, 0].float()) @ teacher[unseen].T
    who = torch.tensor([photos.rows[i]["identity"] for i in photos.held_out])
    agreement = float(cosine.diagonal().mean())
    nearest = cosine.fill_diagonal_(-1).argmax(1).cpu()
    rank1 = float((who[nearest] == who).float().mean())
    print(f"held out: cosine to the teacher {agreement:.3f}, rank-1 against another photo {rank1:.3f}")


if __name__ == "__main__":
    main()
