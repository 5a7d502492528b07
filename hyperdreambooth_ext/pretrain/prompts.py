"""Portraits of many different people, said in words: what a checkpoint is asked for.

Everybody has a name, since captions from the web name the people in them: different names look different, by more than
words for age and origin can say. What a checkpoint understands lies in `portraits/`, one file for the
bundled checkpoint, by its hash, and `any.json` for all others.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError

_PORTRAITS = Path(__file__).parent / "portraits"
# So often is each detail given.
_GIVEN = 0.7


def read_prompts(file: str) -> list[str]:
    """The prompts of a text file, one a line. Raises FileError when there is none."""
    try:
        prompts = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read ({error}): give a text file with one prompt a line.") from error
    if not prompts:
        raise FileError(f"{file} holds no prompt: write one a line.")
    return prompts


@dataclass(frozen=True)
class Portraits:
    """The words of one file in `portraits/`. A name takes one word out of each group of its origin: those of its sex,
    then those of both."""

    words: dict[str, Any]

    @classmethod
    def of(cls, checkpoint_hash: str) -> "Portraits":
        """Those of the checkpoint, or of any."""
        own = _PORTRAITS / f"{checkpoint_hash}.json"
        return cls(json.loads((own if own.is_file() else _PORTRAITS / "any.json").read_text(encoding="utf-8")))

    def prompt(self, number: int, seed: int) -> str:
        """The prompt of candidate `number`: one grown-up person, from the front. The same for the same two numbers."""
        words, who = self.words, random.Random(f"{seed}/{number}")
        sex, people = who.choice(("woman", "man")), who.choice(words["people"])
        name = " ".join(who.choice(group) for group in people[sex] + people["both"])
        origin = people["origin"] if who.random() < 0.8 else ""
        subject = words["prompt"].format(name=name, age=who.choice(words["ages"]), origin=origin, sex=sex)
        details = [detail for detail in words["details"] if sex == "man" or detail not in ("a beard", "a moustache")]
        kinds = (words["hair"], details, words["expressions"], words["light"])
        parts = [who.choice(kind) for kind in kinds if who.random() < _GIVEN]
        return ", ".join([_with_article(subject), *(part for part in parts if part), *words["always"]])


def _with_article(subject: str) -> str:
    """ "a old man" -> "an old man", with single spaces."""
    article, *rest = subject.split()
    return " ".join(["an" if article == "a" and rest[0][0] in "aeiouAEIOU" else article, *rest])


def noise_seed(number: int, seed: int) -> int:
    """The seed of the noise that candidate `number` is sampled from."""
    return random.Random(f"noise/{seed}/{number}").getrandbits(48)
