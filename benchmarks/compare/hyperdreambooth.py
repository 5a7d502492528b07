"""HyperDreamBooth as this extension does it, and the paper's ablations of it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, Progress
from hyperdreambooth_ext.personalize.personalize import Callbacks, Request, personalize
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
    """The main job with its default options, or with one part changed."""

    start: Start = "hypernetwork"
    options: FinetuneOptions = FinetuneOptions()
    predict_only: bool = False
    rounds: int | None = None
    """Rounds of the hypernetwork, where others than its own are asked for."""
    sweep: tuple[float, ...] = ()

    @property
    def steps(self) -> int:
        return 0 if self.predict_only else self.options.steps

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        options = replace(self.options, steps=steps, lr=self.options.lr if lr is None else lr)
        request = Request("x", self.start, options, seed=task.seed, predict_only=self.predict_only)

        def keep(progress: Progress) -> None:
            watch(progress.step, lambda: LidbLearned(progress.lidb.detached()))

        hypernetwork = task.hypernetwork if self.start == "hypernetwork" else None
        if hypernetwork is not None and self.rounds:
            hypernetwork = _with_rounds(hypernetwork, self.rounds)
        photo = Photo(task.person.photo)
        return LidbLearned(personalize(photo, request, task.host, hypernetwork, Callbacks(on_step=keep)).lidb)


def _with_rounds(hypernetwork: Hypernetwork, rounds: int) -> Hypernetwork:
    hypernetwork.decoder.config = replace(hypernetwork.decoder.config, iterations=rounds)
    return hypernetwork
