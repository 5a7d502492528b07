"""Which versions the tests ran on, as a row of the table in docs/results.md: made by the very run that it tells of."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch", "torchvision", "gradio", "timm", "open_clip_torch", "diffusers", "transformers", "safetensors", "numpy",
)  # fmt: skip


def head() -> str:
    """The table's first two lines."""
    columns = ["Python", *PACKAGES, "tests passed", "failed", "skipped"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def row(passed: int, failed: int, skipped: int) -> str:
    """This environment and how its tests went."""
    cells = [platform.python_version(), *map(_version, PACKAGES), str(passed), str(failed), str(skipped)]
    return f"| {' | '.join(cells)} |"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main(files: list[str]) -> int:
    """Print the table out of the rows in `files`."""
    print(head())
    for file in files:
        with open(file, encoding="utf-8") as rows:
            print(rows.read(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
