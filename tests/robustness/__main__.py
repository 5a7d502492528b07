"""Long checks of what must never break, each a command that prints what it counted.

    python run.py robustness fuzz   [--inputs 60000] [--reader NAME]   malformed files, made by hypothesis
    python run.py robustness guided [--inputs 60000] [--reader NAME]   the same, guided by coverage (atheris; Linux)
    python run.py robustness kills  [--kills 200]                      kill -9 at random moments
    python run.py robustness rounds [--rounds 500]                     personalize, generate, delete, over and over
    python run.py robustness flood  [--requests 1000]                  the API under more requests than it takes

Each ends with one line of JSON and exits with 1 when anything was not as it must be.
"""

import importlib
import sys

COMMANDS = ("fuzz", "guided", "kills", "rounds", "flood")


def main(arguments: list[str]) -> int:
    """Run one of the commands."""
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 2
    return importlib.import_module(f"tests.robustness.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
