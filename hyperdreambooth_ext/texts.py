"""Words from strangers: what may stand in a file, on a terminal and in a page as it is."""

import unicodedata

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
