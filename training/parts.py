"""Weights in files small enough to travel, and back.

    python -m training.parts split FOLDER CACHE/tokens.npy FILE.safetensors … [--coarse text_to_image]
    python -m training.parts join  FOLDER OUT

`join` writes OUT/NAME.safetensors for each file that was split, float32. What `--coarse` names travels in eight bits:
enough to train on from, and half as large.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file

from .models import VOCABULARY

PART_BYTES = 15_000_000
EMBEDDING = "token_embedding.weight"
SCALES = "|scales"


def words_of(tokens: Path) -> torch.Tensor:
    """The numbers of the words in captions, int32, from CACHE/tokens.npy."""
    return torch.from_numpy(np.unique(np.load(tokens)).astype(np.int32))


def split(files: dict[str, Path], folder: Path, words: torch.Tensor, coarse: Sequence[str] = ()) -> None:
    """Write all tensors of `files` (by name) in parts of at most PART_BYTES, each named NAME/KEY, in float16; of the
    files that `coarse` names, matrices and convolutions in eight bits, a scale for each row beside them.

    Of the token embeddings, most of which no caption has, only the rows of `words` are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part: dict[str, torch.Tensor] = {}
    number, size = 0, 0

    def close() -> None:
        nonlocal part, number, size
        if part:
            (folder / f"part-{number}.safetensors").write_bytes(save(part))
        part, number, size = {}, number + 1, 0

    for name, file in files.items():
        for key, value in load_file(file).items():
            kept = value[words.long()] if key.endswith(EMBEDDING) else value
            small = _in_eight_bits(kept) if name in coarse and _is_matrix(kept) else {"": _in_half(kept)}
            nbytes = sum(tensor.nbytes for tensor in small.values())
            if size + nbytes > PART_BYTES:
                close()
            part |= {f"{name}/{key}{ending}": tensor for ending, tensor in small.items()}
            size += nbytes
    part["words"] = words
    close()


def _is_matrix(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.ndim > 1


def _in_half(value: torch.Tensor) -> torch.Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous()


def _in_eight_bits(value: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is written for a matrix, by the ending of its name."""
    largest = value.abs().flatten(1).amax(1).clamp(min=1e-12)
    scale = (largest / 127).view(-1, *[1] * (value.ndim - 1))
    return {"": (value / scale).round().to(torch.int8).contiguous(), SCALES: scale.float()}


def join(folder: Path, out: Path) -> None:
    """Write the files again, as OUT/NAME.safetensors, float32."""
    files: dict[str, dict[str, torch.Tensor]] = {}
    for part in sorted(folder.glob("part-*.safetensors")):
        tensors = load_file(part)
        for key, value in tensors.items():
            if key.endswith(SCALES):
                continue
            name, _, inner = key.partition("/")
            whole = value.float() * tensors[key + SCALES] if key + SCALES in tensors else value
            files.setdefault(name, {})[inner] = whole.float() if whole.is_floating_point() else whole
    words = files.pop("words")[""].long()
    for tensors in files.values():
        for key in [key for key in tensors if key.endswith(EMBEDDING)]:
            rows = torch.zeros(VOCABULARY, tensors[key].shape[1])
            tensors[key] = rows.index_copy(0, words, tensors[key])
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, out / f"{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    splitting, joining = actions.add_parser("split"), actions.add_parser("join")
    for action in (splitting, joining):
        action.add_argument("folder", type=Path)
    splitting.add_argument("tokens", type=Path)
    splitting.add_argument("files", type=Path, nargs="+")
    splitting.add_argument("--coarse", nargs="*", default=[], help="names of files, without their ending")
    joining.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.action == "join":
        join(args.folder, args.out)
    else:
        split({file.stem: file for file in args.files}, args.folder, words_of(args.tokens), args.coarse)


if __name__ == "__main__":
    main()
