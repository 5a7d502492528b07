"""Where the finetune starts: at the hypernetwork's prediction, along the first gradient, or at nothing."""

from typing import Literal

import torch

from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..lidb.basis import AnyBasis
from ..lidb.layers import Architecture
from ..lidb.weights import LiDB, zeros
from .iteration import default_micro_batch_size, gradients_of, look_at
from .subject import Subject

Start = Literal["hypernetwork", "gradient", "zero"]
STARTS: tuple[Start, ...] = ("hypernetwork", "gradient", "zero")
# How long the first step along the gradient is, as the norm of ΔW over all layers.
GRADIENT_STEP = 1.0
GRADIENT_SAMPLES = 16


def hypernetwork_start(hypernetwork: Hypernetwork, subject: Subject, rank: int, generator: torch.Generator) -> LiDB:
    """The hypernetwork's rank-1 prediction with room for `rank` directions."""
    return hypernetwork.predict(subject.image).relaxed(rank, generator)


def zero_start(architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator) -> LiDB:
    """A LiDB that changes nothing yet: works on any checkpoint."""
    return zeros(architecture, basis, rank, generator)


def gradient_start(
    host: Host, subject: Subject, architecture: Architecture, basis: AnyBasis, rank: int, generator: torch.Generator
) -> LiDB:
    """One step down the gradient of the diffusion loss, kept to `rank` directions a layer by an SVD.

    The idea of LoRA-GA (arXiv 2407.05000) in the coordinates of the bases: works on any checkpoint, with nothing
    trained before.
    """
    probe = _full_rank_zero(architecture, basis).to(host.device).trainable()
    _, gradients = gradients_of(
        host, host.linears(), probe, [probe.a_train[layer.key] for layer in architecture.layers],
        look_at(host, subject, subject.noisy_batch(host, GRADIENT_SAMPLES, generator)),
        lambda: host.encode_prompts([subject.prompt]), default_micro_batch_size(host, subject.latents),
    )  # fmt: skip
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    a_train, b_train = {}, {}
    for layer, gradient in zip(architecture.layers, gradients, strict=True):
        u, s, vh = torch.linalg.svd((gradient * (-GRADIENT_STEP / length)).cpu().float(), full_matrices=False)
        root = s[:rank].sqrt()
        a_train[layer.key], b_train[layer.key] = u[:, :rank] * root, root[:, None] * vh[:rank]
    return LiDB(architecture, basis, a_train, b_train)


def _full_rank_zero(architecture: Architecture, basis: AnyBasis) -> LiDB:
    """ΔW = A_aux · 0 · I · B_aux: its gradient with respect to A_train is the gradient in the bases' coordinates."""
    sizes = {layer.key: basis.sizes_of(layer) for layer in architecture.layers}
    return LiDB(
        architecture,
        basis,
        {key: torch.zeros(a, b) for key, (a, b) in sizes.items()},
        {key: torch.eye(b) for key, (a, b) in sizes.items()},
    )
