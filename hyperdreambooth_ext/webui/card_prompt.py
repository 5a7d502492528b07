"""What a click on a card puts into the prompt. It knows no WebUI, for a stranger's notes go in."""

import json
from typing import Any

# Nobody's weight is larger; and no whole number of hundreds of digits is asked to be a float.
MAX_WEIGHT = 1000


def card_prompt(tag: str, user_metadata: dict[str, Any]) -> str:
    """The JavaScript expression that a click inserts: `tag`, such as lidb:anna, with its multiplier, then
    the words that the user noted on the card."""
    weight, words = user_metadata.get("preferred weight"), user_metadata.get("activation text")
    prompt = " + ".join([json.dumps(f"<{tag}:"), _multiplier(weight), json.dumps(">")])
    return f"{prompt} + {json.dumps(f' {words}')}" if isinstance(words, str) and words else prompt


def _multiplier(weight: Any) -> str:
    """What is no number must not become part of the expression."""
    if type(weight) in (int, float) and 0 < abs(weight) <= MAX_WEIGHT:
        return str(float(weight))
    return "opts.extra_networks_default_multiplier"
