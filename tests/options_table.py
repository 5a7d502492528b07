"""The tables of options in docs/options.md, from the dataclasses: `python -m tests.options_table` writes them anew."""

from pathlib import Path

from hyperdreambooth_ext.personalize.options import Option, PersonalizeOptions, options_of
from hyperdreambooth_ext.pretrain.options import BuildOptions

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
KINDS = {"options": PersonalizeOptions, "build options": BuildOptions}
HEAD = (
    "| in the tab | command line | API | default | range | recommended | what it does |\n"
    "|---|---|---|---|---|---|---|\n"
)


def page(text: str) -> str:
    """`text` with the tables as they are now, each between its two marks."""
    for name, kind in KINDS.items():
        begin, end = f"<!-- {name}: made by python -m tests.options_table -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        table = HEAD + "".join(_row(option) for option in options_of(kind).values())
        text = f"{before}{begin}\n{table}{end}{rest.partition(end)[2]}"
    return text


def _row(option: Option) -> str:
    flag = f"`--{'no-' if option.default is True else ''}{option.name.replace('_', '-')}`"
    switch = "on" if option.default else "off"
    default = option.unset or (switch if option.type is bool else f"{option.default}")
    cells = (
        option.label if "tab" in option.shown else "",
        flag if "cli" in option.shown else "",
        f"`{option.name}`" if "api" in option.shown else "",
        default,
        _range(option),
        option.recommended,
        option.help,
    )
    return f"| {' | '.join(cells)} |\n"


def _range(option: Option) -> str:
    if option.choices:
        return ", ".join(option.choices)
    if option.low is None or option.high is None:
        return ""
    step = f", in steps of {option.multiple}" if option.multiple else ""
    return f"{_plain(option.low)} to {_plain(option.high)}{step}"


def _plain(number: float) -> str:
    return f"{number:,.7f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
