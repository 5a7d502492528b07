"""`python -m hyperdreambooth_ext <command>`."""

import os
import sys

# OpenCV 5 warns at each face that its new engine has no targets to choose from. It reads this once, when imported.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

from .cli.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
