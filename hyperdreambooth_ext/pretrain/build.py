"""The whole job: a checkpoint gets a hypernetwork of its own.

faces = gather(checkpoint)                 portraits that it samples itself, or photos
prepared = prepare(faces)                  features, latents, identities: each computed once
optimize_targets(prepared)                 optional: a pre-optimized LiDB of each face
nets = train_recognizers(prepared)         the identity loss's, for this checkpoint's latents
train(prepared, nets)                      the best weights so far are kept
export(best or last)                       one file, used from the next personalization on

Every part keeps what it made in the folder and goes on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.config import HypernetworkConfig
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.file import save_hypernetwork
from ..hypernet.latent_identity import LatentIdentityEnsemble
from ..lidb.layers import Architecture
from .faces import gather
from .options import BuildOptions, BuiltFor, settle
from .prepare import Prepared, optimize_targets, prepare
from .processes import Processes
from .progress import Budget, BuildProgress, Reporter
from .recognizers import train_recognizers
from .store import FaceStore, Folder
from .trainer import Trainer, kept_score
from .weights import configuration, in_words, new_decoder, with_encoder

STAGES = ("faces", "targets", "train", "export")


def build(
    path: Path,
    wanted: dict,
    host: Host,
    destination: Path,
    reporter: Reporter = Reporter(),
    processes: Processes = Processes(),
    stages: Sequence[str] = STAGES,
) -> Path | None:
    """Build a hypernetwork for the checkpoint that `host` holds, or go on with it; returns its file in `destination`.

    `wanted` are the options that were asked for by name; `stages` may leave out the later ones, and then None is
    returned. Raises UserError with a sentence for the user, Paused when it was told to: either way everything that
    was made is in the folder `path`.
    """
    folder = Folder(Path(path))
    built_for = BuiltFor(host.checkpoint_name, host.checkpoint_hash, Architecture.of(host.linears()).fingerprint)
    options = processes.share(settle(folder.options, wanted, built_for) if processes.first else None)
    budget = Budget(folder, options)
    try:
        return _Build(folder, options, host, destination, reporter, processes, budget).run(stages)
    finally:
        if processes.first:
            budget.note()


@dataclass(frozen=True)
class _Build:
    """One run of a build whose options are settled."""

    folder: Folder
    options: BuildOptions
    host: Host
    destination: Path
    reporter: Reporter
    processes: Processes
    budget: Budget

    def run(self, stages: Sequence[str]) -> Path | None:
        folder, options, host, processes = self.folder, self.options, self.host, self.processes
        embedder = FaceEmbedder(options.encoder, host.device)
        store = gather(
            folder, replace(options, faces=self.budget.faces), host, embedder, self.reporter, processes,
            self.budget.enough_faces,
        )  # fmt: skip
        self.budget.found(len(store))
        prepared = prepare(folder, store, host, embedder, self.reporter, processes)
        if not set(stages) & {"targets", "train", "export"}:
            return None
        config = configuration(options, host, embedder, self._trained_on(len(store)))
        self._targets(stages, config, prepared, embedder)
        if not set(stages) & {"train", "export"}:
            return None
        identity_net = self._train(config, store, prepared, embedder)
        return self._export(config, embedder, identity_net) if processes.first else None

    def _targets(
        self, stages: Sequence[str], config: HypernetworkConfig, prepared: Prepared, embedder: FaceEmbedder
    ) -> None:  # fmt: skip
        options, last = self.options, tuple(stages)[-1:] == ("targets",)
        if last and not options.target_steps:
            raise UserError("Targets take steps: give each some, such as 40.", "target_steps")
        if options.warm_up or options.beta or last:
            decoder = new_decoder(config, prepared, embedder, options.seed)
            optimize_targets(self.folder, options, prepared, self.host, decoder, self.reporter, self.processes)

    def _train(
        self, config: HypernetworkConfig, store: FaceStore, prepared: Prepared, embedder: FaceEmbedder
    ) -> LatentIdentityEnsemble | None:
        """Returns the identity loss's nets, None where it is off."""
        options, folder, host, processes = self.options, self.folder, self.host, self.processes
        decoder = new_decoder(config, prepared, embedder, options.seed)
        identity_net = None
        if options.identity_weight or options.sampled_identity_weight:
            identity_net = train_recognizers(folder, options, prepared, host.device, self.reporter, processes)
        trainer = Trainer(
            folder, options, store, prepared, host, embedder, decoder, identity_net, self.reporter, processes
        )  # fmt: skip
        steps = self.budget.steps(trainer.seconds_per_step) if processes.first else 0
        trainer.run(processes.share(steps))
        return identity_net

    def _export(
        self, config: HypernetworkConfig, embedder: FaceEmbedder, identity_net: LatentIdentityEnsemble | None
    ) -> Path:
        self.reporter.tell(BuildProgress("export", 0, 1))
        keep = self.options.keep
        config = replace(config, held_out=in_words(kept_score(self.folder, keep)))
        name = f"{_safe(self.host.checkpoint_name)}-{self.host.checkpoint_hash}-hypernetwork.safetensors"
        file = self.destination / name
        decoder = self.folder.last if keep == "last" else self.folder.best
        save_hypernetwork(file, with_encoder(config, embedder, decoder, identity_net))
        self.reporter.tell(BuildProgress("done", 1, 1, message=f"{name} is used from the next personalization on."))
        return file

    def _trained_on(self, faces: int) -> str:
        if self.options.photos:
            return f"{faces:,} photos of faces"
        if self.options.shards:
            return f"{faces:,} faces out of webdataset shards"
        return f"{faces:,} faces that {self.host.checkpoint_name or 'the checkpoint'} sampled itself"


def _safe(name: str) -> str:
    kept = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    return kept.strip(".") or "checkpoint"
