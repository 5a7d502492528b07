"""Where the finetune starts: at the hypernetwork's prediction, along the first gradient, or at nothing."""

from typing import Literal

import torch

from ..errors import TrainingError, UserError
from ..hosts.protocol import Host
from ..hypernet.file import check_fits
from ..hypernet.hypernetwork import Hypernetwork
from ..lidb.basis import AnyBasis, Basis
from ..lidb.layers import Architecture
from ..lidb.weights import LiDB, zeros
from .batch import Subject, make_batch
from .finetune import Objective, default_micro_batch_size

Start = Literal["hypernetwork", "gradient", "zero"]
# How long the first step along the gradient is, as the norm of ΔW over all layers.
GRADIENT_STEP = 1.0
GRADIENT_SAMPLES = 16


def choose_start(asked: Start | None, hypernetwork: Hypernetwork | None) -> Start:
    """The start that is asked for, else the hypernetwork where there is one, else the gradient.

    Raises UserError when a hypernetwork is asked for and there is none.
    """
    if asked == "hypernetwork" and hypernetwork is None:
        raise UserError("No hypernetwork fits this checkpoint: choose the gradient start, which needs none.", "start")
    return asked or ("gradient" if hypernetwork is None else "hypernetwork")


def first_weights(
    start: Start, host: Host, subject: Subject, hypernetwork: Hypernetwork | None, rank: int,
    generator: torch.Generator,
) -> LiDB:  # fmt: skip
    """The LiDB that the finetune begins with. Raises ArchitectureError when the hypernetwork does not fit."""
    architecture, basis = Architecture.of(host.linears()), Basis()
    if start == "zero":
        return zeros(architecture, basis, rank, generator)
    if start == "gradient" or hypernetwork is None:
        return gradient_start(host, subject, architecture, basis, rank, generator)
    check_fits(hypernetwork, architecture)
    return hypernetwork.predict(subject.image).relaxed(rank, generator)


def gradient_start(
    host: Host, subject: Subject, architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator
) -> LiDB:
    """One step down the gradient of the diffusion loss, kept to `rank` directions a layer by an SVD.

    The idea of LoRA-GA (arXiv 2407.05000) in the coordinates of the bases: works on any checkpoint, with nothing
    trained before. Raises TrainingError where the gradient is no number.
    """
    # ΔW = A_aux · 0 · I · B_aux: its gradient with respect to A_train is the gradient in the bases' coordinates.
    sizes = {layer.key: basis.sizes_of(layer) for layer in architecture.layers}
    zero, eye = (
        {key: torch.zeros(size) for key, size in sizes.items()},
        {key: torch.eye(b) for key, (_, b) in sizes.items()},
    )
    probe = LiDB(architecture, basis, zero, eye).to(host.device).trainable()
    objective = Objective(
        host, host.linears(), lambda: host.encode_prompts([subject.prompt]),
        default_micro_batch_size(host, subject.latents),
    )  # fmt: skip
    batch = make_batch(host, subject, GRADIENT_SAMPLES, generator)
    _, gradients = objective.gradients(probe, [probe.a_train[layer.key] for layer in architecture.layers], batch)
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    if not torch.isfinite(length):
        raise TrainingError("The checkpoint's predictions are not numbers: load the model in full precision.")
    a_train, b_train = {}, {}
    for layer, gradient in zip(architecture.layers, gradients, strict=True):
        u, s, vh = torch.linalg.svd((gradient * (-GRADIENT_STEP / length)).cpu().float(), full_matrices=False)
        root = s[:rank].sqrt()
        a_train[layer.key], b_train[layer.key] = u[:, :rank] * root, root[:, None] * vh[:rank]
    return LiDB(architecture, basis, a_train, b_train)
