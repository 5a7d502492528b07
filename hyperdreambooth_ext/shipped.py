"""What the extension brings along: its folder `models/`. Hypernetworks that a user builds or downloads go there too."""

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
HYPERNETWORK = MODELS / "faces128-hypernetwork.safetensors"
CHECKPOINT = MODELS / "faces128.safetensors"
SAMPLE_PHOTO = MODELS / "sample_photo.jpg"
