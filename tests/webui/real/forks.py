"""One column of the tables in docs/hosts.md: a fork of the WebUI from photo to picture, and what it gives back.

    WEBUI_PYTHON=PYTHON python -m tests.webui.real.forks ROOT DATA [--parts api memory page] [--sdxl] [--starts 2]

ROOT is only read. DATA gets the extension and, once, a checkpoint of full size with random weights. Parts: each cell
over the API; the memory after ten jobs in a row; the tab in Chromium, with screenshots in HDB_SCREENSHOTS. On a
processor each takes about five minutes. They are asked of the last start. Further arguments are the program's.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.webui.real.column import Found, column, memory, startup_seconds
from tests.webui.real.random_checkpoint import random_sd15, random_sdxl
from tests.webui.real.server import REPOSITORY, Server
from tests.webui.real.visit import visit

ARGUMENTS = ("--always-cpu", "--skip-prepare-environment")
PARTS = {"api": column, "memory": memory, "page": visit}
# The default preview asks for a network that would have to be downloaded.
OPTIONS = {"show_progress_type": "Approx cheap"}


def prepare(data: Path, checkpoint: str) -> None:
    """The extension as it would be installed, the probe, and the checkpoint."""
    unwanted = shutil.ignore_patterns(".*", "tests", "training", "benchmarks", "docs", "__pycache__")
    for name, source in {"hyperdreambooth": REPOSITORY, "hdb-probe/scripts": Path(__file__).parent}.items():
        extension = data / "extensions" / name
        shutil.rmtree(extension, ignore_errors=True)
        if source == REPOSITORY:
            shutil.copytree(source, extension, ignore=unwanted)
        else:
            extension.mkdir(parents=True)
            shutil.copy(source / "probe.py", extension)
    if not (data / "config.json").exists():
        (data / "config.json").write_text(json.dumps(OPTIONS))
    path = data / "models" / "Stable-diffusion" / f"{checkpoint}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # In a process of its own: it would keep ten gigabytes that the program needs.
        with ProcessPoolExecutor(1) as apart:
            apart.submit({"random": random_sd15, "random-xl": random_sdxl}[checkpoint], path).result()


def found(server: Server, given: argparse.Namespace) -> Iterator[Found]:
    """What is asked for."""
    yield "program", server.call("/hyperdreambooth/v1/version")
    for part in given.parts:
        yield from PARTS[part](server)
    yield "tracebacks with ours in the log", server.log.read_text(errors="replace").count("hyperdreambooth_ext/")


def main() -> None:
    """Print each cell as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sdxl", action="store_true")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=["api"])
    parser.add_argument("--starts", type=int, default=2)
    given, own = parser.parse_known_args()
    # They know some of the arguments of the WebUI no more.
    os.environ["IGNORE_CMD_ARGS_ERRORS"] = "1"
    prepare(given.data.resolve(), "random-xl" if given.sdxl else "random")
    # With a data folder elsewhere their gradio refuses the page's own scripts.
    allowed = ("--gradio-allowed-path", str(given.root.resolve()))
    for number in range(given.starts):
        with Server(given.root, given.data.resolve(), *ARGUMENTS, *allowed, *own) as server:
            # The first start compiles what is new.
            print(f"seconds of ours in start {number + 1}: {startup_seconds(server)}", flush=True)
            for what, value in found(server, given) if number + 1 == given.starts else ():
                print(f"{what}: {value}", flush=True)


if __name__ == "__main__":
    main()
