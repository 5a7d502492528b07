"""The bundled checkpoint's name and size, for the tests that need what it has learned."""

import yaml

from hyperdreambooth_ext.shipped import CHECKPOINT

NAME = CHECKPOINT.stem
SIZE = 8 * yaml.safe_load(CHECKPOINT.with_suffix(".yaml").read_text(encoding="utf-8"))["model"]["params"]["image_size"]
