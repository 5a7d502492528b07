"""Everything that few people need, under one lid: made from the options."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..personalize.options import Option, PersonalizeOptions, options_of

AUTOMATIC = "Automatic"
# They stand in the form itself.
_ABOVE = ("quality", "face")


class Advanced:
    """The accordion's inputs. `components` go into an event's inputs, `values` makes Task's arguments of them."""

    def __init__(self, hypernetworks: Sequence[str] = ()) -> None:
        """Called within a gradio layout. `hypernetworks`: names of the files that are there."""
        shown = options_of(PersonalizeOptions, "tab")
        self._options = [option for name, option in shown.items() if name not in _ABOVE]
        numbers = [option for option in self._options if option.type in (int, float)]
        with gr.Accordion("Advanced", open=False, elem_id="hdb_advanced"):
            with gr.Row():
                named = {option.name: number(option, f"hdb_{option.name}") for option in numbers}
            named |= {option.name: _choice(option, hypernetworks) for option in self._options if option not in numbers}
        self._named = {option.name: named[option.name] for option in self._options}
        self.hypernetwork, self.overwrite = self._named["hypernetwork"], self._named["overwrite"]
        # The WebUI would keep it as a default in ui-config.json, and the file may go.
        self.hypernetwork.do_not_save_to_config = True

    def offer(self, hypernetworks: Sequence[str]) -> Any:
        """An update of the list of hypernetworks; what is chosen stays."""
        return gr.update(choices=_offered(hypernetworks))

    @property
    def components(self) -> list:
        return list(self._named.values())

    def values(self, given: Sequence[Any]) -> dict[str, Any]:
        """Task's arguments from the components' values, in the order of `components`."""
        return {option.name: _value(option, value) for option, value in zip(self._options, given, strict=True)}


def number(option: Option, elem_id: str, value: float | None = None) -> gr.Number:
    """An input for a number, `value` or else the option's default."""
    return gr.Number(
        value or option.default or 0, label=option.label, precision=0 if option.type is int else None, min_width=130,
        info=f"0: {option.unset}" if option.unset else option.help, elem_id=elem_id,
    )  # fmt: skip


def _choice(option: Option, hypernetworks: Sequence[str]) -> Any:
    if option.type is bool:
        return gr.Checkbox(option.default, label=option.label, elem_id=f"hdb_{option.name}")
    return gr.Dropdown(
        _offered([choice.capitalize() for choice in option.choices] or hypernetworks), value=AUTOMATIC,
        label=option.label, info=option.help, elem_id=f"hdb_{option.name}",
    )  # fmt: skip


def _offered(choices: Sequence[str]) -> list[str]:
    # gradio 3.41 shows a choice's value, not its label: they are the same words.
    return [AUTOMATIC, *choices]


def _value(option: Option, given: Any) -> Any:
    """What an option is set to. A cleared number arrives as None or 0, by gradio's version: either leaves the choice to
    the quality or the checkpoint."""
    if option.type is bool:
        return bool(given)
    if option.type is str:
        return option.default if given in (None, AUTOMATIC) else given.lower() if option.choices else given
    return option.default if option.default is None and not given else option.type(given or 0)
