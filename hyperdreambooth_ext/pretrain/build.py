"""The whole job: a checkpoint gets a hypernetwork of its own.

faces = gather(checkpoint)                 portraits that it samples itself, or photos
prepared = prepare(faces)                  features, latents, identities: each computed once
optimize_targets(prepared)                 optional: a pre-optimized LiDB of each face
nets = train_recognizers(prepared)         the identity loss's, for this checkpoint's latents
train(prepared, nets)                      the best weights so far are kept
export(best or last)                       one file, used from the next personalization on

Every part keeps what it made in the folder and goes on from there.
"""

import re
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.config import HypernetworkConfig
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.file import save_hypernetwork
from ..hypernet.latent_identity import LatentIdentityEnsemble
from ..lidb.layers import Architecture
from .context import Context
from .faces import gather
from .options import BuiltFor, Part, settle
from .prepare import Prepared, optimize_targets, prepare
from .processes import Processes
from .progress import Budget, BuildProgress, Reporter
from .recognizers import train_recognizers
from .store import FaceStore, Folder
from .trainer import Trainer, kept_score
from .weights import configuration, new_decoder, with_encoder


def build(
    path: Path,
    wanted: dict,
    host: Host,
    destination: Path,
    reporter: Reporter = Reporter(),
    processes: Processes = Processes(),
    until: Part = "export",
) -> Path | None:
    """Build a hypernetwork for the checkpoint that `host` holds, or go on with it; returns its file in `destination`.

    `wanted` are the options that were asked for by name; after the part `until` it ends, and None is returned where
    that is not the last. Raises UserError with a sentence for the user, Paused when it was told to: either way
    everything that was made is in the folder `path`.
    """
    folder = Folder(Path(path))
    built_for = BuiltFor(host.checkpoint_name, host.checkpoint_hash, Architecture.of(host.linears()).fingerprint)
    options = processes.share(settle(folder.options, wanted, built_for) if processes.first else None)
    budget = Budget(folder, options)
    try:
        embedder = FaceEmbedder(options.encoder, host.device)
        return _run(Context(folder, options, host, embedder, reporter, processes), budget, destination, until)
    finally:
        if processes.first:
            budget.note()


def _run(context: Context, budget: Budget, destination: Path, until: Part) -> Path | None:
    options = context.options
    store = gather(context, budget.faces, budget.enough_faces)
    budget.found(len(store))
    prepared = prepare(context, store)
    if until == "faces":
        return None
    config = configuration(context, len(store))
    if until == "targets" and not options.target_steps:
        raise UserError("Targets take steps: give each some, such as 40.", "target_steps")
    if until == "targets" or options.warm_up or options.beta:
        optimize_targets(context, prepared, new_decoder(context, config, prepared))
    if until == "targets":
        return None
    identity_net = _train(context, budget, config, store, prepared)
    if until == "train" or not context.processes.first:
        return None
    return _export(context, config, identity_net, destination)


def _train(
    context: Context, budget: Budget, config: HypernetworkConfig, store: FaceStore, prepared: Prepared
) -> LatentIdentityEnsemble | None:
    """Returns the identity loss's nets, None where it is off."""
    options, processes = context.options, context.processes
    decoder, identity_net = new_decoder(context, config, prepared), None
    if options.identity_weight or options.sampled_identity_weight:
        identity_net = train_recognizers(context, prepared)
    trainer = Trainer(context, store, prepared, decoder, identity_net)
    trainer.run(processes.share(budget.steps(trainer.seconds_per_step) if processes.first else 0))
    return identity_net


def _export(
    context: Context, config: HypernetworkConfig, identity_net: LatentIdentityEnsemble | None, destination: Path
) -> Path:
    folder, host, keep = context.folder, context.host, context.options.keep
    context.reporter.tell(BuildProgress("export", 0, 1))
    config = replace(config, held_out=kept_score(folder, keep))
    checkpoint = re.sub(r"[^\w.-]", "_", host.checkpoint_name).strip(".") or "checkpoint"
    name = f"{checkpoint}-{host.checkpoint_hash}-hypernetwork.safetensors"
    decoder = folder.last if keep == "last" else folder.best
    save_hypernetwork(destination / name, with_encoder(config, context.embedder, decoder, identity_net))
    context.reporter.tell(BuildProgress("done", 1, 1, message=f"{name} is used from the next personalization on."))
    return destination / name
