"""The judge of decoded drawings: its shortcuts give what the long ways give."""

import pytest
import torch
from torch import nn

pytest.importorskip("ldm")

from training.picture_judge import SIDE, _GroupNorm, cut


def test_the_quick_group_normalization_has_the_gradient_of_torchs_own():
    torch.manual_seed(0)
    own, quick = nn.GroupNorm(4, 8), _GroupNorm(4, 8)
    with torch.no_grad():
        own.weight.normal_()
        own.bias.normal_()
    quick.load_state_dict(own.state_dict())
    hidden_states, wanted = torch.randn(2, 8, 5, 3), torch.randn(2, 8, 5, 3)
    results = []
    for norm in (own, quick.requires_grad_(False)):
        given = hidden_states.clone().requires_grad_()
        output = norm(given)
        (output * wanted).sum().backward()
        results.append((output.detach(), given.grad))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("side", [120, 240])
def test_the_cut_shows_the_recognizer_its_own_square_at_its_own_scale(side):
    """A ramp over the crop: each pixel of the cut holds the place it was taken from, in pixels of the recognizer."""
    ramp = (torch.arange(side) + 0.5) * 120 / side
    pictures = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.expand(side, side)])[None]
    seen = cut(pictures)
    assert seen.shape == (1, 3, SIDE, SIDE)
    inner = torch.arange(10, SIDE - 10)
    assert torch.allclose(seen[0, 0, 50, inner], inner + 0.5 + 4, atol=1e-3)
    assert torch.allclose(seen[0, 1, inner, 50], inner + 0.5 - 3.8, atol=1e-3)
