"""What every part of a build needs."""

from dataclasses import dataclass

from ..hosts.protocol import Host
from ..hypernet.embedder import FaceEmbedder
from .options import BuildOptions
from .processes import Processes
from .progress import Reporter
from .store import Folder


@dataclass(frozen=True)
class Context:
    """One run of a build whose options are settled."""

    folder: Folder
    options: BuildOptions
    host: Host
    embedder: FaceEmbedder
    reporter: Reporter = Reporter()
    processes: Processes = Processes()

    @property
    def size(self) -> int:
        """Side of the faces in pixels."""
        return self.options.size or self.host.default_size
