"""Run by the WebUI at every start. Nothing that is there is moved: a package that an extension moves off the WebUI's
own version is put back at every start.

AUTOMATIC1111's WebUI, Forge and reForge have all that is needed. Forge Neo has no timm: it is installed once and alone,
since what it needs itself is there.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec

NEEDED = {
    "torch": "torch",
    "safetensors": "safetensors",
    "timm": "timm",
    "einops": "einops",
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "PyYAML",
}


def missing() -> list[str]:
    """The packages that are not there, by their names for pip."""
    return [package for module, package in NEEDED.items() if find_spec(module) is None]


def install(run_pip: Callable[[str, str], object] | None) -> None:
    """Install timm by the WebUI's own `launch.run_pip` where it is missing, and say what is missing then."""
    if run_pip is not None and "timm" in missing():
        # Without a network pip would try for a quarter of a minute, at every start.
        os.environ |= {"PIP_RETRIES": "0", "PIP_TIMEOUT": "10"}
        try:
            run_pip("install --no-deps timm", "timm, which HyperDreamBooth needs")
        except RuntimeError:
            print("HyperDreamBooth could not install timm: connect to the network and restart.")
    if names := ", ".join(missing()):
        print(f"HyperDreamBooth needs {names}: install it into the WebUI's environment with pip, then restart.")


def host_pip() -> Callable[[str, str], object] | None:
    """The WebUI's `launch.run_pip`; None outside of a WebUI."""
    try:
        from launch import run_pip
    except ImportError:
        return None
    return run_pip


if __name__ == "__main__":
    # Importing it takes longer than all else here.
    install(host_pip() if missing() else None)
