"""Everything that reads what strangers made: each with whole specimens, its reading, and what it may let through."""

import io
import json
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hyperdreambooth_ext.cli.generate import load_named
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import checked_name
from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, ddpm_alphas_cumprod
from hyperdreambooth_ext.hosts.sidecar import read_sidecar, read_text_config
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import load_hypernetwork, save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.photo import MAX_MEGAPIXELS, load_photo
from hyperdreambooth_ext.jobs.library import entries
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.lora import lora_tensors
from hyperdreambooth_ext.lidb.stored_basis import StoredBasis
from hyperdreambooth_ext.lidb.tags import parse_prompt
from hyperdreambooth_ext.lidb.weights import zeros
from hyperdreambooth_ext.shipped import CHECKPOINT, SAMPLE_PHOTO
from hyperdreambooth_ext.texts import is_plain
from hyperdreambooth_ext.webui.card_prompt import card_prompt
from tests.conftest import SMALL, random_lidb
from tests.robustness.requests import asked, check_task, whole_requests
from tests.stored import stored_basis


@dataclass(frozen=True)
class Reader:
    """`read(path)` raises UserError for what it refuses; `check(result)` asserts that what it took makes sense.

    `claim(content)` is the memory, in bytes, that the file says it needs. `share` of all inputs go to this reader.
    """

    specimens: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    claim: Callable[[bytes], int] = len
    share: float = 0.1
    deadline: float = 2.0


@cache
def _lidbs() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path, contents = Path(folder) / "a.safetensors", []
        for lidb, thumbnail in (
            (random_lidb(SMALL, 2), b"\xff\xd8 a thumbnail"),
            (random_lidb(SMALL, 1), b""),
            (zeros(SMALL, Basis(7, 5, 3), 3, torch.Generator().manual_seed(0)), b""),
        ):
            info = file.Info("anna", "sks", "sd1", "small", "0123456789", "h", "zero", 40, 1, "x", thumbnail)
            file.save(path, lidb, info)
            contents.append(path.read_bytes())
    return contents


def _check_lidb(read: tuple) -> None:
    lidb, info = read
    assert 1 <= lidb.rank <= file.MAX_RANK and len(lidb.architecture) >= 1
    for layer in lidb.architecture.layers:
        a, b = lidb.basis.sizes_of(layer)
        assert lidb.a_train[layer.key].shape == (a, lidb.rank) and lidb.b_train[layer.key].shape == (lidb.rank, b)
    assert all(torch.isfinite(tensor).all() for tensor in lidb.parameters)
    assert all(is_plain(text) for text in vars(info).values() if isinstance(text, str))
    assert all(torch.isfinite(tensor).all() for tensor in lora_tensors(lidb).values())


def _listed(path: Path) -> list:
    return entries(path.parent)


def _stored_basis() -> StoredBasis:
    a_aux = {layer.key: torch.ones(layer.out_features, 3) for layer in SMALL.layers}
    return stored_basis("pca", a_aux, {layer.key: torch.ones(2, layer.in_features) for layer in SMALL.layers})


@cache
def _hypernetworks() -> list[bytes]:
    config = HypernetworkConfig(SMALL, encoder="mobilenetv3_small_050", image_size=64, width=16, depth=1, heads=2)
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for one in (config, replace(config, identity_width=8), replace(config, basis=_stored_basis())):
            torch.manual_seed(0)
            save_hypernetwork(Path(folder) / "h.safetensors", Hypernetwork(one))
            contents.append((Path(folder) / "h.safetensors").read_bytes())
    return contents


def _check_hypernetwork(network: Hypernetwork) -> None:
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    lidb = network.predict(torch.zeros(1, 3, network.config.image_size, network.config.image_size))
    assert lidb.rank == 1 and lidb.architecture == network.config.architecture


@cache
def _photos() -> list[bytes]:
    small = Image.open(SAMPLE_PHOTO).resize((48, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = small.quantize(16)
    deep = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    ways: list[tuple[Image.Image, str, dict]] = [
        (small, "JPEG", {"exif": exif}), (small, "JPEG", {"progressive": True}), (small.convert("CMYK"), "JPEG", {}),
        (small, "PNG", {"exif": exif}), (small.convert("RGBA"), "PNG", {}), (deep, "PNG", {}),
        (palette, "PNG", {"transparency": 3}), (small.convert("1"), "PNG", {}), (small, "WEBP", {}),
        (small.convert("RGBA"), "WEBP", {"lossless": True}), (small, "GIF", {}), (small, "TIFF", {}),
        (small, "EPS", {}),
        (small, "WEBP", {"save_all": True, "append_images": [small.rotate(90)]}),
        (small, "PNG", {"save_all": True, "append_images": [small.rotate(90)]}),
    ]  # fmt: skip
    contents = []
    for image, form, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        contents.append(buffer.getvalue())
    return contents


def _pixels(content: bytes) -> int:
    """Four bytes a pixel, as Pillow keeps them, and the file itself."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            pixels = image.width * image.height
    except Exception:  # whatever is wrong with it, it claims no pixels
        pixels = 0
    return len(content) + 4 * (pixels if pixels <= MAX_MEGAPIXELS * 1e6 else 0)


def _check_photo(photo: np.ndarray) -> None:
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3
    assert 0 < photo.shape[0] * photo.shape[1] <= MAX_MEGAPIXELS * 1e6


def _sidecars() -> list[bytes]:
    yamls = (CHECKPOINT.with_suffix(".yaml"), CONFIGS / "sd15.yaml")
    import yaml

    return [json.dumps(yaml.safe_load(path.read_text())).encode() for path in yamls] + [p.read_bytes() for p in yamls]


def _read_sidecar(path: Path) -> dict:
    try:
        return read_sidecar(path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _check_sidecar(config: dict) -> None:
    params = config["model"]["params"]
    alphas = ddpm_alphas_cumprod(float(params["linear_start"]), float(params["linear_end"]), params["timesteps"])
    assert torch.isfinite(alphas).all() and 1 <= len(alphas) <= 10_000
    assert math.isfinite(float(params.get("scale_factor", 1))) and 1 <= params["image_size"] <= 512


_TEXT = r'"(?:[^"\\]|\\.)*"'
_LACKS = rf'get_uiCurrentTabContent\(\)\.querySelector\("textarea"\)\.value\.includes\({_TEXT}\)'
_EXPRESSION = re.compile(
    rf'"<lidb:anna:" \+ (?:opts\.extra_networks_default_multiplier|-?[\d.e-]+) \+ ">"'
    rf'(?: \+ \({_LACKS} && !{_LACKS} \? "" : {_TEXT}\))?'
)
_TEXT_SHAPES = {
    "text_model.embeddings.token_embedding.weight": (49408, 64),
    "text_model.embeddings.position_embedding.weight": (77, 64),
    **{f"text_model.encoder.layers.{i}.mlp.fc1.weight": (256, 64) for i in range(4)},
}


def _read_text_config(path: Path) -> dict:
    try:
        return read_text_config(path, _TEXT_SHAPES)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _check_text_config(settings: dict) -> None:
    assert (settings["vocab_size"], settings["hidden_size"], settings["num_hidden_layers"]) == (49408, 64, 4)


def _prompts() -> list[bytes]:
    return [
        b"a sks face <lidb:anna:0.8>", b"<lidb:anna:te=0.5:unet=0.9> x <lidb:../../b:1>", b"<lidb:a:nan><lidb:con:1>"
    ]  # fmt: skip


def _read_prompt(path: Path) -> list:
    text, tags = parse_prompt(path.read_bytes().decode("utf-8", "surrogateescape"))
    for tag in tags:
        load_named(path.parent / "none", tag.name)
    return tags


def _check_prompt(tags: list) -> None:
    assert all(math.isfinite(tag.unet) and math.isfinite(tag.text) for tag in tags)


def _names() -> list[bytes]:
    return [b"anna", b"Anna M\xc3\xbcller", b"com1.x", b"../a", b"a\xcc\x81"]


def _check_name(name: str) -> None:
    assert name and name == checked_name(name) and Path(name).name == name and not set(name) & set('<>:"/\\|?*,')
    assert len(f"{name}_lora.safetensors".encode()) < 200


def _cards() -> list[bytes]:
    notes = {"preferred weight": 0.8, "activation text": "sks", "description": "x", "sd version": "SD1", "notes": ""}
    return [json.dumps(notes).encode(), b"{}"]


def _read_card(path: Path) -> str:
    """The WebUI parses NAME.json, and shows a card without notes when it cannot."""
    try:
        notes = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError("These are no notes.") from error
    if not isinstance(notes, dict):
        raise UserError("These notes are no table.")
    return card_prompt("lidb:anna", notes)


def _check_card(expression: str) -> None:
    assert _EXPRESSION.fullmatch(expression), expression


READERS: dict[str, Reader] = {
    "lidb": Reader(_lidbs, file.load, _check_lidb, share=0.26),
    "listing": Reader(_lidbs, _listed, lambda found: None, share=0.14),
    "photo": Reader(_photos, load_photo, _check_photo, _pixels, share=0.2),
    "sidecar": Reader(_sidecars, _read_sidecar, _check_sidecar, share=0.05),
    "text_config": Reader(
        lambda: [(CHECKPOINT.parent / "clip" / "config.json").read_bytes()], _read_text_config, _check_text_config,
        share=0.08,
    ),
    "card": Reader(_cards, _read_card, _check_card, share=0.05),
    "prompt": Reader(_prompts, _read_prompt, _check_prompt, share=0.08),
    "name": Reader(
        _names, lambda path: checked_name(path.read_bytes().decode("utf-8", "surrogateescape")), _check_name, share=0.06
    ),
    # Base64 becomes bytes, and those pixels.
    "api": Reader(whole_requests, asked, check_task, lambda content: 4 * len(content), share=0.05),
    # float16 in the file, float32 in memory.
    "hypernetwork": Reader(
        _hypernetworks, load_hypernetwork, _check_hypernetwork, lambda content: 2 * len(content), share=0.02
    ),
}  # fmt: skip
