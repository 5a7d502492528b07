"""The sentence that says why a job's finetune starts where it does."""

from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..personalize.starts import Start
from .task import Task

NO_HYPERNETWORK = (
    "No hypernetwork fits this checkpoint: started along the first gradient. "
    "Build hypernetwork makes one that starts closer to the person."
)


def start_reason(task: Task, start: Start, hypernetwork: Hypernetwork | None, host: Host) -> str:
    """Why `start` was chosen for `task`."""
    if task.start in ("gradient", "zero"):
        return f"The {task.start} start was chosen."
    if start != "hypernetwork" or hypernetwork is None:
        return NO_HYPERNETWORK
    reason = "Started from the hypernetwork made for this checkpoint."
    if hypernetwork.config.checkpoint_hash != host.checkpoint_hash:
        made_for = hypernetwork.config.checkpoint or "another checkpoint"
        reason = f"Started from a hypernetwork of the same architecture, made for {made_for}."
    if task.hypernetwork:
        reason = f"{reason.rstrip('.')}, {task.hypernetwork}, which was chosen by name."
    return reason
