"""Write CLIP's tokenizer files from the vocabulary that open_clip carries.

python -m training.tokenizer models/clip
"""

import argparse
import gzip
import json
from importlib import resources
from pathlib import Path

from .models import TEXT_ENCODER

# open_clip's list holds 262,144 merges; CLIP's vocabulary takes the first 49,152 less 256 bytes and 2 special tokens.
MERGES = 49152 - 256 - 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    packed = resources.files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]
    (args.out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (args.out / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
    }  # fmt: skip
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    special = {name: settings[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (args.out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], **TEXT_ENCODER}
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Byte letters, byte letters at a word's end, merged pieces, and the two special tokens: token -> number."""
    from open_clip.tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


if __name__ == "__main__":
    main()
