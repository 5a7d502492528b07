"""How good the hypernetwork is by now: held-out faces, sampled with their predictions, and compared."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..files import write_atomically
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.hypernetwork import WeightDecoder
from ..images.face import largest_face
from ..images.sheet import Cell, picture_sheet, save_png
from ..images.tensors import to_tensor
from ..lidb.injection import Applied
from ..sampling.sampler import Sampling, sample_many
from .context import Context
from .prepare import Prepared
from .store import FaceStore

SHOWN = 8
_BATCH = 8


@dataclass(frozen=True)
class Score:
    """`figures` of the held-out faces, and the picture sampled of each, RGB uint8.

    likeness: the mean cosine to the own face; others: to the other held-out faces; margin: the difference, by which the
    best is found, since an average face is like everybody's; rank1: the share of pictures whose nearest held-out face
    is the own. All by the bundled recognizer.
    """

    figures: dict[str, float]
    pictures: list[np.ndarray]


@torch.no_grad()
def held_out_score(context: Context, decoder: WeightDecoder, prepared: Prepared) -> Score:
    """Predict and sample the held-out faces, which are the first. Raises Paused."""
    pictures: list[np.ndarray] = []
    count, sampling = context.options.held_out, Sampling(context.options.score_steps, size=context.size)
    # One of several processes cannot stop while the others wait.
    check = context.reporter.check if context.processes.count == 1 else lambda: None
    for start in range(0, count, _BATCH):
        faces = np.arange(start, min(start + _BATCH, count))
        features = prepared.rows("features", faces)[:, 0].float().to(next(decoder.parameters()).device)
        lidb = decoder.as_lidb(decoder(features))
        prompts = [decoder.config.prompt] * len(faces)
        seeds = [int(face) for face in faces]
        pictures += sample_many(context.host, prompts, seeds, sampling, [Applied(lidb)], should_stop=check)
    return Score(_figures(pictures, prepared, context.embedder), pictures)


def _figures(pictures: list[np.ndarray], prepared: Prepared, embedder: FaceEmbedder) -> dict[str, float]:
    own = prepared.rows("identities", np.arange(len(pictures))).numpy()
    in_pictures = np.zeros_like(own)
    for i, picture in enumerate(pictures):
        crop = largest_face(picture, len(picture), embedder.framing)
        # A picture without a face is like nobody.
        if crop is not None:
            in_pictures[i] = embedder.identities(to_tensor([crop])).cpu().numpy()[0]
    cosine = in_pictures @ own.T
    likeness, others = cosine.diagonal().mean(), cosine[~np.eye(len(own), dtype=bool)].mean()
    right = (cosine.argmax(1) == np.arange(len(own))) & (cosine.max(1) > 0)
    figures = {"margin": likeness - others, "likeness": likeness, "others": others, "rank1": right.mean()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def write_sheet(folder: Path, step: int, score: Score, store: FaceStore) -> None:
    """FOLDER/sheet.png: held-out faces, and what was predicted for them before the training and after `step` steps."""
    before = folder / "before.npz"
    if not step:
        content = io.BytesIO()
        np.savez_compressed(content, pictures=np.stack(score.pictures))
        write_atomically(before, content.getvalue())
    first, shown = np.load(before)["pictures"], range(min(SHOWN, len(score.pictures)))
    title = f"Step {step}: likeness {score.figures['likeness']:.0%}, rank-1 {score.figures['rank1']:.0%}"
    rows: list[tuple[str, list[Cell]]] = [
        (title, [("held-out face", store.crop(i)) for i in shown]),
        ("", [("before training", first[i]) for i in shown]),
        ("", [("predicted", score.pictures[i]) for i in shown]),
    ]
    save_png(picture_sheet(rows), folder / "sheet.png")
