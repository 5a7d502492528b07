"""A build tells its own faces apart: once, so that who is who stays the same when more faces come."""

import numpy as np
from safetensors import SafetensorError  # type: ignore[attr-defined]
from safetensors.torch import load_file, save

from ..errors import FileError
from ..files import write_atomically
from .eyes import Eyes
from .folder import Folder
from .head import Head
from .prepare import Prepared
from .processes import Processes

# So many faces are enough to know in what they differ.
_LOOKED_AT = 2048


def settled_identities(folder: Folder, prepared: Prepared, eyes: Eyes, processes: Processes) -> tuple[Prepared, Eyes]:
    """The same two with a head made for the build's faces, by the first process where it is not there yet.

    With another encoder than the bundled one both are given back as they are. Raises FileError.
    """
    if not eyes.own:
        return prepared, eyes
    if processes.first and not folder.head.exists():
        looked_at = np.arange(min(prepared.count, _LOOKED_AT))
        head = eyes.head.told_apart(prepared.rows("features", looked_at)[:, 0].float())
        write_atomically(folder.head, save({"weight": head.weight.cpu(), "bias": head.bias.cpu()}))
    processes.wait()
    try:
        head = Head(**load_file(folder.head))
    except (SafetensorError, OSError, TypeError) as error:
        raise FileError(f"{folder.head} is damaged ({error}): delete it and start again.") from error
    return Prepared(folder, prepared.count, head), eyes.telling(head)
