"""What the tests share: SD 1.5's shapes without its weights, the sample photo, and the tiny model."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS
from hyperdreambooth_ext.hosts.naming import kohya_linears
from hyperdreambooth_ext.images.photo import load_photo
from hyperdreambooth_ext.jobs.jobs import Studio
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture, Layer
from hyperdreambooth_ext.lidb.weights import LiDB, zeros
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.studio import WatchedBackend
from tests.tiny import Tiny, make_tiny
from tests.versions import head, row


def pytest_configure():
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One of several processes: threads would wait for each other.
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_terminal_summary(terminalreporter):
    """The row of these versions; HDB_VERSIONS names a file that it is added to."""
    counts = [len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")]
    line = row(counts[0], counts[1] + counts[2], counts[3])
    terminalreporter.write_line(f"{head()}\n{line}")
    if os.environ.get("HDB_VERSIONS"):
        with open(os.environ["HDB_VERSIONS"], "a", encoding="utf-8") as rows:
            rows.write(f"{line}\n")


BY_FOLDER = {"tests/webui/real": "webui_real", "tests/browser": "browser", "tests/gpu": "gpu"}


def pytest_collection_modifyitems(config, items):
    """Marks by folder; what cannot run here is not collected, and slow tests come last."""
    for item in items:
        for folder, marker in BY_FOLDER.items():
            if Path(item.path).is_relative_to(config.rootpath / folder):
                item.add_marker(marker)
    there = {"webui_real": bool(os.environ.get("WEBUI_ROOT")), "gpu": torch.cuda.is_available()}
    lacking = {marker for marker, is_there in there.items() if not is_there}
    left_out = [item for item in items if lacking & {marker.name for marker in item.iter_markers()}]
    config.hook.pytest_deselected(items=left_out)
    kept = [item for item in items if item not in left_out]
    items[:] = sorted(kept, key=lambda item: item.get_closest_marker("slow") is not None)


OUTPUT = Path(__file__).parent / "output"


@cache
def sd15_layers() -> Architecture:
    """SD 1.5's architecture, read off the real classes on the meta device."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(**json.loads((CONFIGS / "clip_l.json").read_text())))
    return Architecture.of(kohya_linears(unet, text))


@pytest.fixture(scope="session")
def sd15() -> Architecture:
    return sd15_layers()


def random_lidb(architecture: Architecture, rank: int = 1, seed: int = 0, basis: Basis = Basis()) -> LiDB:
    """A LiDB that changes something in every layer."""
    generator = torch.Generator().manual_seed(seed)
    lidb = zeros(architecture, basis, rank, generator)
    a_train = {key: torch.randn(a.shape, generator=generator) * 0.1 for key, a in lidb.a_train.items()}
    return LiDB(architecture, basis, a_train, lidb.b_train)


def delta_of(lidb: LiDB, layer: Layer) -> torch.Tensor:
    """ΔW = A_aux · A_train · B_train · B_aux, multiplied out as the formula says."""
    basis = lidb.basis
    return basis.a_of(layer) @ lidb.a_train[layer.key] @ lidb.b_train[layer.key] @ basis.b_of(layer)


def relative_error(a: LiDB, b: LiDB) -> float:
    """‖ΔW_a − ΔW_b‖ / ‖ΔW_a‖ over all layers, in the coordinates of the bases (where lengths are the same)."""
    difference = total = 0.0
    for layer in a.architecture.layers:
        one = a.a_train[layer.key] @ a.b_train[layer.key]
        other = b.a_train[layer.key] @ b.b_train[layer.key]
        difference += float((one - other).square().sum())
        total += float(one.square().sum())
    return (difference / total) ** 0.5 if total else difference**0.5


SMALL = Architecture(
    (
        Layer("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 64, 64),
        Layer("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 320, 320),
        Layer("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 320, 768),
    )
)


@pytest.fixture
def small_lidb() -> LiDB:
    return random_lidb(SMALL, rank=2)


@pytest.fixture(scope="session")
def sample_photo():
    return load_photo(SAMPLE_PHOTO)


@pytest.fixture(scope="session")
def small_photo(sample_photo):
    """The sample photo at a third of its size: the same face, found faster."""
    return np.asarray(Image.fromarray(sample_photo).resize((sample_photo.shape[1] // 3, sample_photo.shape[0] // 3)))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def judges():
    """What the benchmarks judge pictures by, loaded once."""
    from benchmarks.judges import Judges

    return Judges()


@pytest.fixture(scope="session")
def loaded_backend(tiny, tmp_path_factory):
    backend = WatchedBackend(tmp_path_factory.mktemp("unused"), tiny)
    with backend.model() as host:
        backend.hypernetwork(host)
    return backend


@pytest.fixture
def studio(loaded_backend, tmp_path) -> Studio:
    return Studio(loaded_backend.again(tmp_path / "lidb"))
