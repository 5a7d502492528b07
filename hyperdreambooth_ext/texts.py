"""Words and values from strangers: what may stand in a file, on a terminal and in a page as it is."""

import unicodedata
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

MAX_TEXT = 1000
# Control characters (a terminal obeys them), halves of characters (no file can hold them), and what breaks a line.
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
# What turns the reading direction, so that a text looks like another.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain_text(text: str, longest: int = MAX_TEXT) -> str:
    """`text` as one line of at most `longest` characters, with U+FFFD in place of every character that is not plain."""
    return "".join(character if is_plain(character) else "\ufffd" for character in text[:longest])


def is_plain(text: str) -> bool:
    """Whether every character can be shown as itself."""
    return all(unicodedata.category(character) not in _UNSHOWN and character not in _TURNING for character in text)


def check_fields(values: Any, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Raises ValueError unless the fields of a dataclass have the types of their defaults, its texts are plain and its
    numbers within `ranges`."""
    for field in fields(values):
        value, kind = getattr(values, field.name), type(field.default)
        if kind in (bool, int, str) and type(value) is not kind:
            raise ValueError(f"{field.name} is no {kind.__name__}")
        if isinstance(value, str) and (len(value) > MAX_TEXT or not is_plain(value)):
            raise ValueError(f"{field.name} is no plain text")
        if field.name in ranges and not ranges[field.name][0] <= value <= ranges[field.name][1]:
            raise ValueError(f"{field.name} is {value}")
