"""`<lidb:name:0.8>` in a prompt, written as the WebUI writes `<lora:…>`."""

import math
import re
from dataclasses import dataclass

from ..errors import UserError
from ..texts import plain_text

# The WebUI's own pattern (modules/extra_networks.py), for one kind of network.
_TAG = re.compile(r"<lidb:([^>]+)>")


@dataclass(frozen=True)
class Tag:
    """One tag: the LiDB's name and how strongly it acts in the UNet and in the text encoder."""

    name: str
    unet: float = 1.0
    text: float = 1.0


def parse_prompt(prompt: str) -> tuple[str, list[Tag]]:
    """The prompt without its tags, and the tags in their order.

    `<lidb:anna>`, `<lidb:anna:0.8>`, `<lidb:anna:0.5:0.9>` (text encoder, then UNet) and `<lidb:anna:te=0.5:unet=0.9>`
    are understood. Raises UserError when a multiplier is no number.
    """
    tags = [_tag(match.group(1)) for match in _TAG.finditer(prompt)]
    return " ".join(_TAG.sub("", prompt).split()), tags


def _tag(text: str) -> Tag:
    name, *arguments = text.split(":")
    positional = [argument for argument in arguments if "=" not in argument]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    te = named.get("te", positional[0] if positional else "1")
    unet = named.get("unet", positional[1] if len(positional) > 1 else te)
    return Tag(name.strip(), _number(name, unet), _number(name, te))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        name = plain_text(name, 100)
        raise UserError(f"The multiplier {text[:40]!r} of <lidb:{name}> is no number: write <lidb:{name}:0.8>.")
    return value
