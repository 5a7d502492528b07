"""Malformed files out of whole ones: bytes that flip, ends that are missing, headers that lie."""

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 64, 65, 127, 128, 255, 4096, 65_535, 65_536, 65_521, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *NUMBERS, 0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf"), 10**400, True, False, None, "", "x",
    "x" * 5000, "\x00", "\x1b]0;owned\x07", "\ud800", "\u202e", "<script>alert(1)</script>", "../../../etc/passwd",
    "\\\\host\\share", "con", "1x1", "65536x65536", "65524x65524", "99999999x1", "-1x-1", "1e9x1", "hf-hub:a/b",
    "local-dir:/", [], {}, [[]], [None], {"": {}}, [0] * 100, ["x"] * 5000,
)  # fmt: skip
Damage = Callable[[bytes, Random], bytes]


def damaged(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """`content` with one to three things wrong, sometimes with a piece of another file in it."""
    for _ in range(random.choice((1, 1, 2, 3))):
        if others and random.random() < 0.1:
            content = _spliced(content, random, random.choice(others))
        else:
            content = random.choice(_ALL)(content, random)
    return content


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 4, 32))):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _insert(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    piece = random.choice((bytes(random.randrange(256) for _ in range(8)), b"\0" * 64, b"PK\x03\x04", b"\x80\x04."))
    return content[:at] + piece + content[at:]


def _repeat(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at : at + 64] * random.choice((1, 2, 20)) + content[at:]


def _number(content: bytes, random: Random) -> bytes:
    form = random.choice(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q"))
    packed = struct.pack(form, random.choice(NUMBERS) % (1 << 8 * struct.calcsize(form)))
    at = random.choice((0, random.randrange(len(content) + 1)))
    return content[:at] + packed + content[at + len(packed) :]


def _spliced(content: bytes, random: Random, other: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)] + other[random.randrange(len(other) + 1) :]


def _header(content: bytes, random: Random) -> bytes:
    """Change the JSON of a safetensors file, or a whole file of JSON, and keep its length right, mostly."""
    start, text, rest = _split(content)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _flip(content, random)
    changed = json.dumps(_changed(tree, random), allow_nan=True).encode()
    if random.random() < 0.1:
        changed = _twice(changed, random)
    if start is None:
        return changed
    changed += b" " * (-len(changed) % 8)
    length = len(changed) if random.random() < 0.9 else random.choice(NUMBERS) % (1 << 64)
    return struct.pack("<Q", length) + changed + rest


def _split(content: bytes) -> tuple[int | None, bytes, bytes]:
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if content[:1] != b"{" and 0 < length <= len(content) - 8:
        return 8, content[8 : 8 + length], content[8 + length :]
    return None, content, b""


def _changed(tree: Any, random: Random) -> Any:
    """The tree with one node replaced, dropped or renamed; a text that is JSON itself is a tree too."""
    if isinstance(tree, str) and tree[:1] in "{[" and tree and random.random() < 0.9:
        try:
            return json.dumps(_changed(json.loads(tree), random))
        except (ValueError, RecursionError):
            return random.choice(VALUES)
    if isinstance(tree, dict) and tree and random.random() < 0.9:
        tree, key = dict(tree), random.choice(list(tree))
        kind = random.random()
        if kind < 0.1:
            del tree[key]
        elif kind < 0.2:
            tree[str(random.choice(VALUES))[:300]] = tree.pop(key)
        else:
            tree[key] = _changed(tree[key], random)
        return tree
    if isinstance(tree, list) and tree and random.random() < 0.8:
        tree, at = list(tree), random.randrange(len(tree))
        if random.random() < 0.3:
            return tree[:at] + tree[at : at + 1] * random.choice((0, 2, 50)) + tree[at + 1 :]
        tree[at] = _changed(tree[at], random)
        return tree
    return random.choice(VALUES)


def _twice(text: bytes, random: Random) -> bytes:
    """A name that stands twice in one table."""
    at = text.find(b"{", random.randrange(len(text))) + 1
    end = text.find(b",", at)
    return text[:at] + text[at:end] + b"," + text[at:] if 0 < at < end else text


_ALL: tuple[Damage, ...] = (_flip, _cut, _insert, _repeat, _number, _header, _header, _header, _header)
