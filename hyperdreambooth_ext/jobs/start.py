"""Where a job's finetune starts, and the sentence that says why."""

from dataclasses import dataclass

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..personalize.starts import Start
from ..personalize.subject import DEFAULT_TRIGGER
from .backend import Backend
from .task import Task

NO_HYPERNETWORK = (
    "No hypernetwork fits this checkpoint: started along the first gradient. "
    "Build hypernetwork makes one that starts closer to the person."
)


@dataclass(frozen=True)
class ChosenStart:
    """`hypernetwork` and its file's `hash` are None and "" without one; `prompt` is what the person is learned as."""

    kind: Start
    hypernetwork: Hypernetwork | None
    hash: str
    reason: str

    @property
    def prompt(self) -> str:
        return f"a {DEFAULT_TRIGGER} face" if self.hypernetwork is None else self.hypernetwork.config.prompt


def chosen_start(task: Task, backend: Backend, host: Host) -> ChosenStart:
    """The start that the task asks for, else the hypernetwork where one fits, else the gradient."""
    if task.start in ("gradient", "zero"):
        return ChosenStart(task.start, None, "", f"The {task.start} start was chosen.")
    hypernetwork, hash_ = backend.hypernetwork(host, task.hypernetwork)
    if hypernetwork is None and task.start is not None:
        raise UserError("No hypernetwork fits this checkpoint: choose the gradient start, which needs none.")
    if hypernetwork is None:
        return ChosenStart("gradient", None, "", NO_HYPERNETWORK)
    reason = "Started from the hypernetwork made for this checkpoint."
    if hypernetwork.config.checkpoint_hash != host.checkpoint_hash:
        made_for = hypernetwork.config.checkpoint or "another checkpoint"
        reason = f"Started from a hypernetwork of the same architecture, made for {made_for}."
    if task.hypernetwork:
        reason = f"{reason.rstrip('.')}, {task.hypernetwork}, which was chosen by name."
    return ChosenStart("hypernetwork", hypernetwork, hash_, reason)
