"""Run by the WebUI at every start. It installs nothing: what is needed is what the WebUI needs itself.

A package that an extension moves off the WebUI's own version is put back at every start, so nothing is moved here;
if another extension has taken a package away, this says which.
"""

from importlib.util import find_spec

NEEDED = {
    "torch": "torch",
    "safetensors": "safetensors",
    "timm": "timm",
    "open_clip": "open-clip-torch",
    "einops": "einops",
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "PyYAML",
}

missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
if missing:
    names = ", ".join(missing)
    print(f"HyperDreamBooth needs {names}: install it into the WebUI's environment with pip, then restart.")
