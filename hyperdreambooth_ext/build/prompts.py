"""Portraits of many different people, said in words: what a checkpoint is asked to draw."""

import random
from pathlib import Path

from ..errors import FileError

_AGES = ("young", "middle-aged", "old", "25 year old", "40 year old", "60 year old")
_ORIGINS = (
    "Nigerian", "Ethiopian", "Moroccan", "Brazilian", "Mexican", "Peruvian", "Chinese", "Japanese", "Korean", "Thai",
    "Indian", "Iranian", "Turkish", "Italian", "Irish", "Swedish", "Polish", "Russian", "Hawaiian", "Australian",
)  # fmt: skip
_HAIR = (
    "black hair", "brown hair", "blond hair", "red hair", "gray hair", "short hair", "long hair", "curly hair",
    "straight hair", "bald", "a bun", "a fringe",
)  # fmt: skip
_LIGHT = ("soft light", "bright light", "dark light", "window light", "golden hour", "studio light")
_EXPRESSIONS = ("smiling", "serious", "laughing", "calm", "surprised", "tired")
_DETAILS = ("wearing glasses", "freckles", "a beard", "a moustache", "high cheekbones", "a round face", "a long face")


def read_prompts(file: str) -> list[str]:
    """The prompts of a text file, one a line. Raises FileError when there is none."""
    try:
        prompts = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read ({error}): give a text file with one prompt a line.") from error
    if not prompts:
        raise FileError(f"{file} holds no prompt: write one a line.")
    return prompts


def portrait_prompt(number: int, seed: int) -> str:
    """The prompt of candidate `number`: one grown-up person, from the front. The same for the same two numbers."""
    words = random.Random(f"{seed}/{number}")
    sex = words.choice(("woman", "man"))
    details = [detail for detail in _DETAILS if sex == "man" or detail not in ("a beard", "a moustache")]
    parts = [words.choice(_HAIR), words.choice(_EXPRESSIONS), words.choice(_LIGHT), words.choice(details)]
    parts = [part for part in parts if words.random() < 0.7]
    words.shuffle(parts)
    origin = f"{words.choice(_ORIGINS)} " if words.random() < 0.8 else ""
    age = words.choice(_AGES)
    subject = f"{'an' if age[0] in 'aeiou' else 'a'} {age} {origin}{sex}"
    return ", ".join([subject, *parts, "looking at the camera", "portrait photo"])


def noise_seed(number: int, seed: int) -> int:
    """The seed of the noise that candidate `number` is drawn from."""
    return random.Random(f"noise/{seed}/{number}").getrandbits(48)
