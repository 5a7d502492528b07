"""Pictures from a prompt with `<lidb:…>` tags, without the WebUI."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import FileError
from ..hosts.protocol import Host
from ..lidb.file import load, path_of
from ..lidb.injection import Applied
from ..lidb.tags import parse_prompt
from ..sampling.sampler import Sampling, sample


def generate(
    host: Host, prompt: str, lidb_dir: Path, sampling: Sampling, on_step: Callable[[], object] = lambda: None
) -> np.ndarray:
    """One picture, RGB uint8 [size, size, 3], with the LiDBs that the prompt's tags name in `lidb_dir`.

    Raises FileError when a LiDB is missing, ArchitectureError when it was made for another model.
    """
    text, tags = parse_prompt(prompt)
    applied = [Applied(load_named(lidb_dir, tag.name), tag.unet, tag.text) for tag in tags]
    return sample(host, text, sampling, applied, on_step)


def load_named(folder: Path, name: str):
    """The LiDB that a tag names. Raises UserError for a name that leads out of the folder, FileError without a file."""
    path = path_of(folder, name)
    if not path.is_file():
        raise FileError(f"There is no LiDB {name!r} in {folder}: check the name in the tag.")
    return load(path)[0]
