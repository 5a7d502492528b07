"""Where the finetune starts: at the hypernetwork's prediction, along the first gradient, or at nothing."""

from typing import Literal

import torch

from ..errors import TrainingError, UserError
from ..hosts.protocol import Host
from ..hypernet.file import check_fits
from ..hypernet.hypernetwork import Hypernetwork
from ..lidb.basis import AnyBasis, Basis
from ..lidb.layers import DEFAULT_GROUPS, Architecture
from ..lidb.weights import LiDB, zeros
from .batch import Subject, make_batch
from .finetune import Objective, default_micro_batch_size
from .optimizer import longest_gain, weight_norms

Start = Literal["hypernetwork", "gradient", "zero"]
GRADIENT_SAMPLES, LINE_SEARCH_SAMPLES = 16, 8
# The line search begins where no layer's ‖ΔW‖ is more than this share of its ‖W‖.
FIRST_SHARE = 0.01


def choose_start(asked: Start | None, hypernetwork: Hypernetwork | None) -> Start:
    """The start that is asked for, else the hypernetwork where there is one, else the gradient.

    Raises UserError when a hypernetwork is asked for and there is none.
    """
    if asked == "hypernetwork" and hypernetwork is None:
        raise UserError("No hypernetwork fits this checkpoint: choose the gradient start, which needs none.", "start")
    return asked or ("gradient" if hypernetwork is None else "hypernetwork")


def first_weights(
    start: Start, host: Host, subject: Subject, hypernetwork: Hypernetwork | None, rank: int,
    generator: torch.Generator, text: bool = False,
) -> LiDB:  # fmt: skip
    """The LiDB that the finetune begins with; with `text` SDXL's two text encoders are in it, where the host has their
    layers. Raises ArchitectureError when the hypernetwork does not fit."""
    groups = [*DEFAULT_GROUPS, "sdxl_text_attention"] if text else DEFAULT_GROUPS
    architecture, basis = Architecture.of(host.linears(), groups), Basis()
    if start == "zero":
        return zeros(architecture, basis, rank, generator)
    if start == "gradient" or hypernetwork is None:
        return gradient_start(host, subject, architecture, basis, rank, generator)
    check_fits(hypernetwork, Architecture.of(host.linears()))
    predicted = hypernetwork.predict(subject.image).relaxed(rank, generator)
    # It knows nothing of SDXL's text encoders.
    rest = tuple(layer for layer in architecture.layers if layer.key not in predicted.a_train)
    if not rest:
        return predicted
    beside = zeros(Architecture(rest), predicted.basis, rank, generator)
    return LiDB(
        architecture, predicted.basis, {**predicted.a_train, **beside.a_train}, {**predicted.b_train, **beside.b_train}
    )


def gradient_start(
    host: Host, subject: Subject, architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator
) -> LiDB:
    """One step along -‖W‖² times the gradient of the diffusion loss, kept to `rank` directions a layer by an SVD, as
    long as lowers the loss of other noises most.

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
    norms = weight_norms(objective.linears)
    direction = {
        layer.key: -gradient.cpu().float() * norms[layer.key] ** 2
        for layer, gradient in zip(architecture.layers, gradients, strict=True)
    }
    shares = torch.stack([change.norm() / max(norms[key], 1e-6) for key, change in direction.items()])
    if not shares.isfinite().all():
        raise TrainingError("The checkpoint's predictions are not numbers: load the model in full precision.")
    along = LiDB(architecture, basis, *_of_rank(direction, rank))
    others = make_batch(host, subject, LINE_SEARCH_SAMPLES, generator)
    length = longest_gain(
        lambda length: objective.loss(along.map(lambda x: x * length**0.5).to(host.device), others),
        FIRST_SHARE / max(float(shares.max()), 1e-30),
    )  # fmt: skip
    return along.map(lambda x: x * length**0.5)


def _of_rank(direction: dict[str, torch.Tensor], rank: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A_train and B_train: of each layer's matrix its `rank` largest directions."""
    a_train, b_train = {}, {}
    for key, matrix in direction.items():
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        root = s[:rank].sqrt()
        a_train[key], b_train[key] = u[:, :rank] * root, root[:, None] * vh[:rank]
    return a_train, b_train
