"""What a click on a card puts into the prompt. It knows no WebUI, for a stranger's notes go in."""

import json
from typing import Any

from ..texts import is_plain

# Nobody's weight is larger; and no whole number of hundreds of digits is asked to be a float.
MAX_WEIGHT = 1000
# The first text area of the page's open tab is its prompt (modules/ui_toprow.py).
_PROMPT = 'get_uiCurrentTabContent().querySelector("textarea").value'


def default_notes(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the card of a file with these metadata says where the user has noted nothing else."""
    trigger = metadata.get("modelspec.trigger_phrase")
    known = isinstance(trigger, str) and trigger and is_plain(trigger)
    return {"activation text": f"a {trigger} face"} if known else {}


def card_prompt(tag: str, user_metadata: dict[str, Any]) -> str:
    """The JavaScript expression that a click inserts: `tag`, such as lidb:anna, with its multiplier, then the
    activation text where the prompt lacks it, or holds the tag too: then the click takes both out again."""
    weight, words = user_metadata.get("preferred weight"), user_metadata.get("activation text")
    prompt = " + ".join([json.dumps(f"<{tag}:"), _multiplier(weight), json.dumps(">")])
    if not isinstance(words, str) or not words:
        return prompt
    there, ours = (f"{_PROMPT}.includes({json.dumps(text)})" for text in (words, f"<{tag}:"))
    return f'{prompt} + ({there} && !{ours} ? "" : {json.dumps(f" {words}")})'


def _multiplier(weight: Any) -> str:
    """What is no number must not become part of the expression."""
    if type(weight) in (int, float) and 0 < abs(weight) <= MAX_WEIGHT:
        return str(float(weight))
    return "opts.extra_networks_default_multiplier"
