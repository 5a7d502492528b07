"""What the extension brings along: its folder `models/`. Hypernetworks that a user builds or downloads go there too."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def _root() -> Path:
    """The extension's folder, or where pip has put what lies beside the package (`data-files` in pyproject.toml)."""
    beside = Path(__file__).parents[1]
    if (beside / "metadata.ini").is_file():
        return beside
    try:
        installed = files("hyperdreambooth-ext") or []
    except PackageNotFoundError:
        return beside
    return next((Path(str(file.locate())).resolve().parent for file in installed if file.name == "style.css"), beside)


ROOT = _root()
MODELS = ROOT / "models"
HYPERNETWORK = MODELS / "faces128-hypernetwork.safetensors"
CHECKPOINT = MODELS / "faces128.safetensors"
SAMPLE_PHOTO = MODELS / "sample_photo.jpg"
