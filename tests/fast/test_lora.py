"""A LiDB exported as a LoRA has the same ΔW, also when an independent library reads it."""

import pytest
import torch
from lycoris.modules.locon import LoConModule
from safetensors.torch import load_file
from torch import nn

from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.lora import export_lora
from tests.conftest import SMALL, delta_of, random_lidb


@pytest.mark.parametrize("rank", [1, 3])
def test_lycoris_builds_the_same_delta_from_the_file(tmp_path, rank):
    lidb = random_lidb(SMALL, rank)
    export_lora(tmp_path / "lora.safetensors", lidb, Info(name="anna"))
    tensors = load_file(tmp_path / "lora.safetensors")
    assert len(tensors) == 3 * len(SMALL)
    for layer in SMALL.layers:
        up, down, alpha = (
            tensors[f"{layer.key}.{part}"].float() for part in ("lora_up.weight", "lora_down.weight", "alpha")
        )
        linear = nn.Linear(layer.in_features, layer.out_features, bias=False)
        module = LoConModule.make_module_from_state_dict(layer.key, linear, up, down, None, alpha, None)
        delta = module.get_diff_weight(1.0)[0]
        assert torch.allclose(delta, delta_of(lidb, layer), atol=2e-3 * delta_of(lidb, layer).abs().max())
