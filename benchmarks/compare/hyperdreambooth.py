"""HyperDreamBooth as this extension does it, and the paper's ablations of it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, Progress
from hyperdreambooth_ext.personalize.personalize import Request, personalize
from hyperdreambooth_ext.personalize.starts import Start

from .method import Learned, Task, Watch


@dataclass(frozen=True)
class LidbLearned:
    lidb: LiDB

    def applied(self, host: DiffusersHost, multiplier: float) -> AbstractContextManager[None]:
        return injected(host.linears(), Applied(self.lidb, multiplier, multiplier))

    def save(self, folder: Path) -> Path:
        file.save(folder / "lidb.safetensors", self.lidb, file.Info())
        return folder / "lidb.safetensors"


@dataclass(frozen=True)
class HyperDreamBooth:
    """The main job with its default options, or with one part changed. `steps` 0 takes the prediction as it is."""

    start: Start = "hypernetwork"
    steps: int = FinetuneOptions().steps
    rank: int = FinetuneOptions().rank
    batch: int = FinetuneOptions().batch
    styled: int = FinetuneOptions().styled
    identity_weight: float | None = FinetuneOptions().identity_weight
    iterations: int | None = None
    """Rounds of the hypernetwork, where others than its own are asked for."""
    sweep: tuple[float, ...] = ()

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        options = FinetuneOptions(
            steps=max(steps, 1), rank=self.rank, batch=self.batch, styled=self.styled,
            identity_weight=self.identity_weight,
        )  # fmt: skip
        options = options if lr is None else replace(options, lr=lr)
        request = Request("x", self.start, options, seed=task.seed, predict_only=not self.steps)

        def keep(progress: Progress) -> None:
            watch(progress.step, lambda: LidbLearned(progress.lidb.detached()))

        hypernetwork = task.hypernetwork if self.start == "hypernetwork" else None
        if hypernetwork is not None and self.iterations:
            hypernetwork = _with_rounds(hypernetwork, self.iterations)
        return LidbLearned(personalize(task.person.photo, request, task.host, hypernetwork, on_step=keep).lidb)


def _with_rounds(hypernetwork: Hypernetwork, iterations: int) -> Hypernetwork:
    hypernetwork.decoder.config = replace(hypernetwork.decoder.config, iterations=iterations)
    return hypernetwork
