"""Which basis a build speaks in: random, learned, PCA of targets, or gradient-informed. One interface for all four.

The random one needs nothing and is the same everywhere. The learned one begins as the random one and is trained with
the decoder. The other two look at faces first: at their targets in nearly the full space (weights2weights, arXiv
2406.09413, does so with whole LoRAs), or at how the first gradients of different people differ (the idea of LoRA-GA,
arXiv 2407.05000, here for people rather than for one task).
"""

import json
from collections.abc import Mapping

import numpy as np
import torch

from ..errors import FileError
from ..files import write_atomically
from ..hosts.protocol import Host
from ..hypernet.embedder import Eyes
from ..hypernet.lesson import Lesson
from ..hypernet.loss import denoising_errors
from ..hypernet.targets import preoptimize
from ..hypernet.training import drawn_noise, min_snr_weights
from ..lidb.basis import AnyBasis, Basis
from ..lidb.injection import adding
from ..lidb.layers import Architecture
from ..lidb.safetensors_bytes import from_file, to_bytes
from ..lidb.stored_basis import METADATA, NamedBasis, StoredBasis, checked_basis
from .folder import Folder
from .options import BuildOptions
from .prepare import Prepared
from .processes import Processes
from .progress import BuildProgress, Clock, Reporter
from .weights import configuration, new_decoder

# In how many of a layer's directions the targets that PCA looks at may go.
PCA_DIRECTIONS = 2048
# People whose gradients are computed at once.
_AT_ONCE = 8
_MAX_BYTES = 4_000_000_000


def settled_basis(
    folder: Folder, options: BuildOptions, prepared: Prepared, host: Host, eyes: Eyes, reporter: Reporter,
    processes: Processes,
) -> AnyBasis:  # fmt: skip
    """The build's basis: made by the first process where it is not there yet, then read by all.

    Raises FileError, Paused.
    """
    if options.basis in ("random", "learned"):
        return Basis()
    architecture = Architecture.of(host.linears())
    if processes.first and not folder.basis.exists():
        make = _pca if options.basis == "pca" else _gradient
        with host.frozen():
            a_aux, b_aux = make(options, prepared, host, eyes, architecture, reporter)
        basis = StoredBasis.of(options.basis, a_aux, b_aux)
        write_atomically(folder.basis, to_bytes(basis.tensors(), {METADATA: json.dumps(basis.to_dict())}))
    processes.wait()
    tensors, metadata = from_file(folder.basis, _MAX_BYTES)
    try:
        return checked_basis(NamedBasis.from_dict(json.loads(metadata[METADATA])), tensors, architecture.layers)
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{folder.basis} is damaged ({error}): delete it and start again.") from error


def _pca(
    options: BuildOptions, prepared: Prepared, host: Host, eyes: Eyes, architecture: Architecture, reporter: Reporter
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A_aux: the principal directions of people's targets; B_aux as drawn, for the targets share what they read."""
    wide, drawn = Basis(PCA_DIRECTIONS, Basis().b), Basis()
    config = configuration(options, host, eyes, wide, "")
    decoder = new_decoder(config, prepared, eyes, options.seed).to(host.device)
    people = np.arange(options.held_out, min(prepared.count, options.held_out + options.basis_people))
    thetas, clock = [], Clock(0, len(people))
    for start in range(0, len(people), options.target_batch):
        part = people[start : start + options.target_batch]
        latents = prepared.rows("latents", part).float().to(host.device)

        def latents_at(step: int, latents=latents) -> torch.Tensor:
            reporter.check()
            return latents[:, step % latents.shape[1]]

        generator = torch.Generator().manual_seed(options.seed + int(part[0]))
        theta = preoptimize(host, decoder, latents_at, config.prompt, generator, steps=options.target_steps)
        thetas.append(theta.cpu())
        done = start + len(part)
        reporter.tell(BuildProgress("basis", done, len(people), clock.left(done)))
    theta = torch.cat(thetas)
    a_aux, b_aux = {}, {}
    for i, layer in enumerate(architecture.layers):
        a = wide.sizes_of(layer)[0]
        _, _, directions = torch.linalg.svd(theta[:, i, :a].float(), full_matrices=False)
        a_aux[layer.key] = _completed(wide.a_of(layer) @ directions.T, drawn.a_of(layer))
        b_aux[layer.key] = drawn.b_of(layer)
    return a_aux, b_aux


def _gradient(
    options: BuildOptions, prepared: Prepared, host: Host, eyes: Eyes, architecture: Architecture, reporter: Reporter
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A_aux and B_aux: the directions in which the first gradients of two people differ, over many pairs.

    Gradients G of ΔW are never formed: with ΔW = A · Ω + Ψ · B at A = 0 and B = 0, dL/dA is G · Ωᵀ and dL/dB is
    Ψᵀ · G, a random sketch of them (Halko et al., arXiv 0909.4061). The two of a pair see the same noise at the same
    timesteps, and count with opposite signs, so what all people have in common falls out.
    """
    del eyes
    drawn, generator = Basis(), torch.Generator().manual_seed(options.seed)
    a_sums: dict[str, torch.Tensor] = {}
    b_sums: dict[str, torch.Tensor] = {}
    rng = np.random.default_rng(options.seed)
    faces, total = np.arange(options.held_out, prepared.count), options.basis_people // 2 * 2
    clock = Clock(0, total)
    for begun in range(0, total, _AT_ONCE):
        reporter.check()
        done = min(begun + _AT_ONCE, total)
        people = rng.permutation(faces)[: min(done - begun, len(faces)) // 2 * 2]
        for key, (a, b) in _sketched(host, prepared, people, architecture, drawn, generator).items():
            a_sums[key], b_sums[key] = a_sums.get(key, 0) + a, b_sums.get(key, 0) + b
        reporter.tell(BuildProgress("basis", done, total, clock.left(done)))
    a_aux = {layer.key: _completed(a_sums[layer.key], drawn.a_of(layer)) for layer in architecture.layers}
    b_aux = {layer.key: _completed(b_sums[layer.key].T, drawn.b_of(layer).T).T for layer in architecture.layers}
    return a_aux, b_aux


def _sketched(
    host: Host, prepared: Prepared, people: np.ndarray, architecture: Architecture, drawn: Basis,
    generator: torch.Generator,
) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:  # fmt: skip
    """layer key -> (G · Ωᵀ [out, a], Ψᵀ · G [b, in]) of the difference between the first half of `people` and the
    second, on the CPU."""
    pairs = len(people) // 2
    latents = prepared.rows("latents", people)[:, 0].float().to(host.device)
    noise, timesteps = drawn_noise(host, (pairs, *latents.shape[1:]), generator, Lesson())
    noise, timesteps = noise.repeat(2, 1, 1, 1).to(latents), timesteps.repeat(2).to(host.device)
    signs = torch.tensor([1.0] * pairs + [-1.0] * pairs, device=host.device)
    fixed, leaves = _probes(architecture, drawn, generator, host.device)
    ups = {key: (leaves[key][0], fixed[key][0]) for key in leaves}
    downs = {key: (fixed[key][1], leaves[key][1]) for key in leaves}
    prompt = "a sks face"
    with torch.enable_grad(), adding(host.linears(), ups, downs):
        embeds = host.encode_prompts([prompt]).expand(len(people), -1, -1)
        errors = denoising_errors(host, latents, noise, timesteps, embeds).mean((1, 2, 3))
        loss = (errors * signs * min_snr_weights(host.alphas_cumprod[timesteps])).sum()
        gradients = torch.autograd.grad(loss, [leaf for of in leaves.values() for leaf in of])
    values = iter(gradients)
    return {key: (next(values).float().cpu(), next(values).float().cpu()) for key in leaves}


def _probes(architecture: Architecture, drawn: Basis, generator: torch.Generator, device: torch.device):
    """layer key -> (Ω [a, in], Ψ [out, b]) and layer key -> (A [out, a], B [b, in]), zero and to be differentiated."""
    fixed, leaves = {}, {}
    for layer in architecture.layers:
        a, b = drawn.sizes_of(layer)
        omega = torch.randn(a, layer.in_features, generator=generator) / layer.in_features**0.5
        psi = torch.randn(layer.out_features, b, generator=generator) / layer.out_features**0.5
        fixed[layer.key] = (omega.to(device), psi.to(device))
        leaves[layer.key] = (
            torch.zeros(layer.out_features, a, device=device, requires_grad=True),
            torch.zeros(b, layer.in_features, device=device, requires_grad=True),
        )
    return fixed, leaves


def _completed(found: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns [width, n] that begin with the span of `found` [width, m], as many as `drawn` [width, n] has.

    Where fewer were found than are wanted, the drawn ones fill up.
    """
    wanted = drawn.shape[1]
    u, s, _ = torch.linalg.svd(found.double(), full_matrices=False)
    known = u[:, s > 1e-6 * s.max().clamp_min(1e-30)][:, :wanted]
    rest = drawn.double()
    rest = rest - known @ (known.T @ rest)
    more, spread, _ = torch.linalg.svd(rest, full_matrices=False)
    del spread
    return torch.cat([known, more[:, : wanted - known.shape[1]]], dim=1).float()
