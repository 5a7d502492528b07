"""What is different on a graphics card. Left out where there is none; `run.py test tests/gpu -rP` there."""

import pytest
import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.images.face import largest_face
from hyperdreambooth_ext.images.photo import load_photo
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB, zeros
from hyperdreambooth_ext.personalize.batch import Subject, prepare_subject
from hyperdreambooth_ext.personalize.finetune import Finetuned, FinetuneOptions, Identity, finetune
from hyperdreambooth_ext.shipped import CHECKPOINT, HYPERNETWORK, SAMPLE_PHOTO
from tests.stored import stored_basis


class Unrecorded(DiffusersHost):
    """A host whose iterations are launched operation by operation."""

    capturable = False


def learn(host: DiffusersHost, on_step=lambda progress: None, asked: bool = False, **options) -> Finetuned:
    """With `asked`, recognizers that nobody taught say whether the person is seen."""
    photo = load_photo(SAMPLE_PHOTO)
    lidb = options.pop("lidb", None) or zeros(
        Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0)
    )
    with host.frozen():
        subject = prepare_subject(largest_face(photo, host.default_size), host, "a sks face")
        wanted = FinetuneOptions(**{"steps": 8, "batch": 4, **options})
        identity = asked_of_untaught(host, subject) if asked else None
        generator = torch.Generator().manual_seed(0)
        return finetune(host, subject, lidb, wanted, generator, on_step, identity=identity)


def asked_of_untaught(host: DiffusersHost, subject: Subject) -> Identity:
    torch.manual_seed(0)
    hypernetwork = load_hypernetwork(HYPERNETWORK)
    hypernetwork.carry(LatentIdentityEnsemble.untrained(2).eval().requires_grad_(False))
    return Identity.of(host, hypernetwork, subject.image)


def difference(one: LiDB, other: LiDB) -> float:
    """Of all numbers, relative to those of `one`."""
    both = [torch.cat([tensor.flatten() for tensor in lidb.parameters]) for lidb in (one, other)]
    return float((both[0] - both[1]).norm() / both[0].norm())


@pytest.mark.parametrize("asked", [False, True])
def test_a_recorded_finetune_learns_what_one_without_a_graph_learns(asked):
    losses: dict[type, list[float]] = {}
    learned = {}
    for kind in (DiffusersHost, Unrecorded):
        losses[kind] = []
        learned[kind] = learn(kind(CHECKPOINT, "cuda"), lambda p, of=losses[kind]: of.append(p.loss), asked).lidb
    # A graph may take other algorithms of the libraries, which round otherwise.
    assert difference(*learned.values()) < 0.01
    assert losses[DiffusersHost] == pytest.approx(losses[Unrecorded], rel=1e-3)
    # The first is waited for, the others come one late.
    assert losses[DiffusersHost][0] == losses[DiffusersHost][1]


def test_a_graphics_card_learns_what_a_processor_learns():
    there, here = (learn(DiffusersHost(CHECKPOINT, device), steps=3).lidb for device in ("cuda", "cpu"))
    assert difference(here, there) < 0.01


def test_the_card_is_not_waited_for_while_it_learns():
    def from_here_on(progress) -> None:
        # Torch raises when anything waits for the card from the first replay to the last.
        if progress.step == 4:
            torch.cuda.set_sync_debug_mode("error")
        if progress.step == 8:
            torch.cuda.set_sync_debug_mode("default")

    try:
        learn(DiffusersHost(CHECKPOINT, "cuda", torch.bfloat16), from_here_on, asked=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_fewer_samples_a_pass_learn_the_same_in_less_memory():
    host = DiffusersHost(CHECKPOINT, "cuda")
    learned, memory = [], []
    for micro_batch_size in (18, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        learned.append(learn(host, batch=16, micro_batch_size=micro_batch_size, steps=3).lidb)
        memory.append(torch.cuda.max_memory_allocated())
    assert difference(*learned) < 0.01
    assert memory[1] < memory[0]


def test_a_lidb_in_a_stored_basis_is_learned_and_its_basis_stays_where_it_was():
    host = DiffusersHost(CHECKPOINT, "cuda")
    architecture = Architecture.of(host.linears())
    hadamard = Basis()
    stored = stored_basis(
        "pca", {layer.key: hadamard.a_of(layer) for layer in architecture.layers},
        {layer.key: hadamard.b_of(layer) for layer in architecture.layers},
    )  # fmt: skip
    lidb = zeros(architecture, stored, 2, torch.Generator().manual_seed(0))
    done = learn(host, lidb=lidb)
    assert done.steps == 8 and done.lidb.basis is stored
    assert float(sum(a.abs().sum() for a in done.lidb.a_train.values())) > 0
