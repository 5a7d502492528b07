"""Which basis a build speaks in."""

from ..hosts.protocol import Host
from ..lidb.basis import Basis
from .eyes import Eyes
from .folder import Folder
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .progress import Reporter


def settled_basis(
    folder: Folder, options: BuildOptions, prepared: Prepared, host: Host, eyes: Eyes, reporter: Reporter,
    processes: Processes,
) -> Basis:  # fmt: skip
    """The basis of the build."""
    return Basis()
