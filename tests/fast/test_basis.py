"""The frozen bases are orthonormal, of constant magnitude, and the same for ever."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdreambooth_ext.lidb.basis import Basis, hadamard_order
from hyperdreambooth_ext.lidb.layers import Layer

SD_WIDTHS = (320, 640, 768, 1024, 1280, 2048, 2560, 5120, 10240)


def square(width: int) -> Layer:
    """A layer that is as wide on both sides."""
    return Layer("lora_unet_x", width, width)


@pytest.mark.parametrize("width", SD_WIDTHS)
def test_every_width_of_stable_diffusion_has_its_hadamard_matrix(width):
    assert hadamard_order(width) == width


@pytest.mark.parametrize("width", SD_WIDTHS)
def test_rows_are_orthonormal_and_of_one_magnitude(width):
    basis = Basis()
    b_aux, a_aux = basis.b_of(square(width)), basis.a_of(square(width))
    assert b_aux.shape == (50, width) and a_aux.shape == (width, 100)
    assert torch.allclose(b_aux @ b_aux.T, torch.eye(50), atol=1e-5)
    assert torch.allclose(a_aux.T @ a_aux, torch.eye(100), atol=1e-5)
    assert b_aux.abs().unique().numel() == 1


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 700), seed=st.integers(0, 2**31))
def test_any_width_and_seed_gives_orthonormal_rows(width, seed):
    basis = Basis(seed=seed)
    a, b = basis.sizes_of(square(width))
    assert 1 <= a <= min(100, width) and 1 <= b <= min(50, width)
    rows = basis.b_of(square(width))
    assert rows.shape == (b, width)
    assert torch.allclose(rows @ rows.T, torch.eye(b), atol=1e-5)


@pytest.mark.parametrize(
    ("width", "sha256"),
    [
        (320, "356c494fc4a49525"),
        (768, "f6b8738703fe0744"),
        (1280, "ac5ff50cafedbb31"),
    ],
)
def test_the_bits_are_those_that_saved_files_rely_on(width, sha256):
    basis = Basis()
    bits = basis.a_of(square(width)).contiguous().numpy().tobytes() + basis.b_of(square(width)).numpy().tobytes()
    assert hashlib.sha256(bits).hexdigest()[:16] == sha256


def test_sides_seeds_and_widths_differ():
    assert not torch.equal(Basis().a_of(square(320)).T[:50], Basis().b_of(square(320)))
    assert not torch.equal(Basis(seed=1).b_of(square(320)), Basis().b_of(square(320)))


def test_a_layer_without_channels_is_refused():
    with pytest.raises(ValueError, match="at least one channel"):
        hadamard_order(0)
