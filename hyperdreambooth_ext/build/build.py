"""The whole job: a checkpoint gets a hypernetwork of its own.

faces = gather(checkpoint)                 portraits that it draws itself, or photos
prepared = prepare(faces)                  features, latents, identities: each computed once
targets = optimise_targets(prepared)       optional
train(prepared, targets)                   the best weights so far are kept
export(best)                               one file, used from the next personalisation on

Every part keeps what it made in the folder and goes on from there.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.file import save_hypernetwork
from ..lidb.layers import Architecture
from .bases import settled_basis
from .eyes import Eyes
from .faces import gather
from .folder import Folder
from .options import BuildOptions, BuiltFor, settle
from .prepare import prepare
from .processes import Processes
from .progress import BuildProgress, Reporter
from .recogniser import teach_recogniser
from .targets import optimise_targets
from .trainer import Trainer, best_score
from .weights import configuration, new_decoder, with_encoder

STAGES = ("faces", "targets", "train", "export")
# Of the time that may be spent: what the rest of a build takes beside the steps themselves.
_MEASURING = 1.15


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
    folder, began = Folder(Path(path)), time.monotonic()
    built_for = BuiltFor(host.checkpoint_name, host.checkpoint_hash, Architecture.of(host.linears()).fingerprint)
    options = processes.share(settle(folder.options, wanted, built_for) if processes.first else None)
    eyes = Eyes(options.encoder, host.device)
    store = gather(folder, options, host, eyes, reporter, processes)
    prepared = prepare(folder, store, host, eyes, reporter, processes)
    if not set(stages) & {"targets", "train", "export"}:
        return None
    basis = settled_basis(folder, options, prepared, host, eyes, reporter, processes)
    config = configuration(options, host, eyes, basis, trained_on(options, host))
    if tuple(stages)[-1:] == ("targets",) and not options.target_steps:
        raise UserError("Targets take steps: say how many, such as --target-steps 40.")
    if options.warm_up or options.beta or tuple(stages)[-1:] == ("targets",):
        decoder = new_decoder(config, prepared, eyes, options.seed)
        optimise_targets(folder, options, prepared, host, decoder, reporter, processes)
    if not set(stages) & {"train", "export"}:
        return None
    decoder = new_decoder(config, prepared, eyes, options.seed, learn_basis=options.basis == "learned")
    recogniser = None
    if options.identity_weight:
        recogniser = teach_recogniser(folder, options, prepared, host.device, reporter, processes)
    trainer = Trainer(
        folder, options, store, prepared, host, eyes, decoder, recogniser, reporter, processes
    )  # fmt: skip
    trainer.run(_steps(folder, options, trainer, processes, time.monotonic() - began))
    if not processes.first:
        return None
    reporter.tell(BuildProgress("export", 0, 1))
    config = configuration(options, host, eyes, basis, trained_on(options, host), best_score(folder))
    file = destination / f"{_safe(host.checkpoint_name)}-{built_for.checkpoint_hash}-hypernetwork.safetensors"
    save_hypernetwork(file, with_encoder(config, eyes, folder.best))
    reporter.tell(BuildProgress("done", 1, 1, message=f"{file.name} is used from the next personalisation on."))
    return file


def trained_on(options: BuildOptions, host: Host) -> str:
    """Where the faces came from, in words."""
    if options.photos:
        return f"{options.faces:,} photos of faces"
    if options.shards:
        return f"{options.faces:,} faces out of webdataset shards"
    return f"{options.faces:,} faces that {host.checkpoint_name or 'the checkpoint'} drew itself"


def _steps(
    folder: Folder, options: BuildOptions, trainer: Trainer, processes: Processes, spent: float
) -> int:  # fmt: skip
    """How many steps to train: as asked for, or what fits into the hours that are left, decided once."""
    if not options.hours:
        return options.steps
    plan = json.loads(folder.plan.read_text(encoding="utf-8")) if folder.plan.exists() else {}
    if plan.get("hours") != options.hours:
        seconds = max(60.0, options.hours * 3600 - spent) / _MEASURING
        steps = max(options.evaluate_every, int(seconds / trainer.seconds_per_step()))
        plan = processes.share({"hours": options.hours, "steps": steps})
        if processes.first:
            write_atomically(folder.plan, (json.dumps(plan) + "\n").encode())
    return plan["steps"]


def _safe(name: str) -> str:
    kept = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    return kept.strip(".") or "checkpoint"
