"""What a personalization job needs of the program that holds the model: the WebUI, or our own window."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork


class Backend(Protocol):
    """The program around the tab. Jobs run in a thread of their own, one at a time."""

    name: str
    """Said in reports: "WebUI 1.10.1", "standalone"."""

    def model(self) -> AbstractContextManager[Host]:
        """The loaded model, ready to be trained on, for as long as the context lasts.

        Entering waits for the program's own lock, takes the user's LoRAs out of the weights and undoes optimizations
        that have no backward; leaving gives everything back byte for byte, whatever happened. Raises UserError with a
        sentence when this model or its mode cannot be trained on.
        """
        ...

    def unfit(self) -> str:
        """Why the model that is loaded now cannot be personalized, as one sentence; empty when it can.

        Cheap, and loads nothing: the tab asks whenever it is shown.
        """
        ...

    def hypernetwork(self, host: Host, name: str = "") -> Hypernetwork | None:
        """The hypernetwork for the host's architecture; None when none fits.

        `name` asks for the file of that name in `hypernetwork_dirs`. Raises FileError when it cannot be had.
        """
        ...

    def hypernetwork_dirs(self) -> list[Path]:
        """Where hypernetworks are looked for; one that was built here goes into the first."""
        ...

    def builds_dir(self) -> Path:
        """Where builds of hypernetworks keep what they made on the way."""
        ...

    def wanted(self) -> bool:
        """Whether anybody but the thread that asks uses the model or waits for it: a build lets them go first."""
        ...

    def peek(self) -> Host | None:
        """The loaded model to be looked at, never to be run; None when there is none that can be personalized."""
        ...

    def can_try(self) -> bool:
        """Whether the bundled checkpoint is the loaded one, or could be, since there is no other."""
        ...

    def load_bundled(self) -> None:
        """Load the bundled checkpoint. Raises UserError when it cannot be."""
        ...

    def lidb_dir(self) -> Path:
        """Where LiDBs are saved: the WebUI's LoRA folder, or the folder that the command line uses."""
        ...

    def saved(self, path: Path) -> None:
        """Called after a LiDB or a LoRA was written: forget cached copies of a file of that name before anybody samples
        who could still see the old one; within `model()` at the latest when the model is given back."""
        ...

    def report(self, stage: str, step: int, steps: int, preview: object | None) -> None:
        """Told about progress from the job's thread, for the program's own progress display; may do nothing."""
        ...
