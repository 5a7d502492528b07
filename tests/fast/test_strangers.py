"""Files from strangers: hostile specimens by hand, and a small run of the fuzzers (tests/robustness has the large)."""

import io
import json
import struct
import zlib
from dataclasses import replace

import pytest
import torch
from PIL import Image

from hyperdreambooth_ext.errors import FileError, PhotoError, UserError
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.encoder import backbone
from hyperdreambooth_ext.hypernet.file import load_hypernetwork
from hyperdreambooth_ext.images.photo import photo_from_bytes
from hyperdreambooth_ext.jobs.library import entries
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.safetensors_bytes import to_bytes
from hyperdreambooth_ext.lidb.weights import LiDB
from tests.conftest import SMALL, random_lidb
from tests.robustness.fuzz import fuzzed
from tests.robustness.guard import ALLOWANCE, _peak, _start_of_peak
from tests.robustness.readers import READERS

SCRIPT = "<script>owned=1</script>"


@pytest.mark.parametrize("name", READERS)
def test_malformed_inputs_are_refused_in_a_sentence_or_make_sense(name, tmp_path):
    inputs = 8 if name == "hypernetwork" else 120
    counts = fuzzed(name, inputs, tmp_path / "fuzzed.safetensors", first_seed=7)
    assert sum(counts.values()) >= inputs


def saved(tmp_path, change=lambda header, metadata: None, tensors=None, **info):
    """A whole LiDB whose header was changed by a stranger."""
    path = tmp_path / "a.safetensors"
    file.save(path, random_lidb(SMALL, 1), file.Info(name="anna", **info))
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    outer = json.loads(content[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["lidb"])
    change(header, outer["__metadata__"])
    outer["__metadata__"]["lidb"] = json.dumps(header)
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda header, _: header.update(name="\x1b]0;owned\x07"),
        lambda header, _: header.update(checkpoint="x" * 2000),
        lambda header, _: header.update(trigger="a\u202eb"),
        lambda header, _: header.update(trigger="\ud800"),
        lambda header, _: header.update(steps=True),
        lambda header, _: header.update(steps=-1),
        lambda header, _: header.update(seed=10**30),
        lambda header, _: header.update(rank=1.0),
        lambda header, _: header["basis"].update(seed=True),
        lambda header, _: header["basis"].update(seed="0"),
        lambda header, _: header["shapes"].__setitem__(0, " 64x64"),
        lambda header, _: header["shapes"].__setitem__(0, "6_4x64"),
        lambda _, metadata: metadata.update(ssmd_cover_images='{"0": "x"}'),
        lambda _, metadata: metadata.update(ssmd_cover_images='[["x"]]'),
        lambda _, metadata: metadata.update(ssmd_cover_images=json.dumps(["A" * 1_500_000])),
    ],
)
def test_nonsense_in_the_header_is_refused(tmp_path, change):
    with pytest.raises(FileError, match=r"[.]$"):
        file.load(saved(tmp_path, change))


def claiming(shape: str, key: str = "lora_unet_x", a: int = 4096) -> bytes:
    """A LiDB of a few bytes for a layer of this shape."""
    from hyperdreambooth_ext.lidb.layers import Architecture, Layer

    architecture = Architecture((Layer(key, *map(int, shape.split("x"))),))
    basis = Basis(a, 1)
    header = {
        **{name: value for name, value in vars(file.Info()).items() if name != "thumbnail"}, "format": 1, "rank": 1,
        "basis": basis.to_dict(), "shapes": [shape], "architecture": architecture.fingerprint,
    }  # fmt: skip
    return to_bytes({f"{key}.lidb": torch.zeros(1, a + 5, dtype=torch.int8)}, {"lidb": json.dumps(header)})


@pytest.mark.parametrize("shape", ["65524x64", "65536x64", "64x65524", "40000x40000", "99999x1", "0x1"])
def test_a_small_file_cannot_ask_for_a_large_basis(tmp_path, shape):
    (tmp_path / "a.safetensors").write_bytes(claiming(shape))
    before = _start_of_peak()
    with pytest.raises(FileError, match="none that any model needs|cannot be"):
        file.load(tmp_path / "a.safetensors")
    assert _peak() - before < ALLOWANCE


@pytest.mark.parametrize("key", ["lora_../../x", "lora_a b", "x", "lora_\x1b[2J", "lora_" + "x" * 300])
def test_layers_have_names_of_letters(tmp_path, key):
    (tmp_path / "a.safetensors").write_bytes(claiming("64x64", key, a=4))
    with pytest.raises(FileError, match="no layer is called"):
        file.load(tmp_path / "a.safetensors")


def test_numbers_that_a_lora_could_not_hold_are_refused(tmp_path):
    huge = random_lidb(SMALL, 1).map(lambda tensor: tensor * 3000)
    with pytest.raises(FileError, match="larger than any training makes it"):
        file.save(tmp_path / "a.safetensors", huge, file.Info())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_a_training_that_ended_in_no_numbers_is_not_saved(tmp_path, small_lidb, nothing):
    first = next(iter(small_lidb.a_train))
    broken = LiDB(SMALL, small_lidb.basis, {**small_lidb.a_train}, small_lidb.b_train)
    broken.a_train[first] = broken.a_train[first] * nothing
    with pytest.raises(FileError, match="numbers that are none"):
        file.save(tmp_path / "a.safetensors", broken, file.Info())
    assert list(tmp_path.iterdir()) == []


def test_words_of_a_checkpoint_that_no_file_can_hold_are_replaced_when_saving(tmp_path, small_lidb):
    file.save(tmp_path / "a.safetensors", small_lidb, file.Info(checkpoint="a\udc80b\nc", trigger="s" * 5000))
    info = file.load(tmp_path / "a.safetensors")[1]
    assert info.checkpoint == "a\ufffdb\ufffdc" and len(info.trigger) == 1000


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9, 2_000_001])
def test_a_header_of_a_gigabyte_is_not_read(tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{" + b" " * 3_000_000)
    before = _start_of_peak()
    with pytest.raises(FileError, match="longer than it can be"):
        file.load(tmp_path / "a.safetensors")
    assert _peak() - before < ALLOWANCE


@pytest.mark.parametrize("tail", [b"PK\x05\x06" + b"\0" * 18, b"<html>", b"\0"])
def test_a_file_that_is_a_second_one_behind_its_end_is_refused(tmp_path, tail):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(FileError):
        file.load(path)


@pytest.mark.parametrize("content", [b"\x80\x04\x95", b"PK\x03\x04", b"%PDF-1.7", b"GIF89a", b"MZ"])
def test_other_formats_and_pickles_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content + b"\0" * 100)
    for read in (file.load, load_hypernetwork):
        with pytest.raises(FileError):
            read(tmp_path / "a.safetensors")
    assert entries(tmp_path) == []


CONFIG = HypernetworkConfig(SMALL, encoder="mobilenetv3_small_050", image_size=64, width=32)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8192, "depth": 64}, {"encoder": "vit_huge_patch14_224"}, {"identity_width": 8192},
        {"basis": Basis(4096, 4096)},
    ],
)  # fmt: skip
def test_a_small_hypernetwork_file_cannot_ask_for_a_large_network(tmp_path, change):
    tensors = {"decoder.features_in.weight": torch.zeros(32, 8, dtype=torch.float16)}
    path = tmp_path / "h.safetensors"
    path.write_bytes(to_bytes(tensors, {"hypernetwork": replace(CONFIG, **change).to_json()}))
    before = _start_of_peak()
    with pytest.raises(FileError, match=r"[.]$"):
        load_hypernetwork(path)
    assert _peak() - before < 2 * ALLOWANCE


@pytest.mark.parametrize(
    "encoder",
    ["hf-hub:somebody/model", "hf_hub:somebody/model", "local-dir:/tmp", "../x", "open_clip:hf-hub:a/b",
     "open_clip:ViT-B-32/../../evil.pt", "open_clip:ViT-B-32//etc/passwd", "no_such_model", ""],
)  # fmt: skip
def test_an_encoder_is_one_that_the_libraries_list(encoder):
    with pytest.raises(UserError, match="cannot be made"):
        backbone(encoder, pretrained=True)


def png(width: int, height: int, chunks: bytes = b"", data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + chunk(b"IDAT", data or zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(65_000, 65_000), (2**31 - 1, 1), (40_000, 10), (0, 0), (9000, 9000)])
def test_a_decompression_bomb_is_refused_before_it_goes_off(size):
    before = _start_of_peak()
    with pytest.raises(PhotoError, match=r"[.]$"):
        photo_from_bytes(png(*size, data=zlib.compress(b"\0" * 10_000_000)))
    assert _peak() - before < ALLOWANCE


def test_a_large_photo_takes_at_most_twice_its_pixels(tmp_path):
    Image.new("RGBA", (5000, 5000), (9, 9, 9, 9)).save(tmp_path / "a.png", compress_level=1)
    before = _start_of_peak()
    READERS["photo"].read(tmp_path / "a.png")
    assert _peak() - before < 2 * 4 * 5000 * 5000 + ALLOWANCE


def test_a_script_behind_a_photo_changes_nothing(sample_photo):
    buffer = io.BytesIO()
    Image.fromarray(sample_photo[:64, :64]).save(buffer, "JPEG")
    assert photo_from_bytes(buffer.getvalue() + SCRIPT.encode()).shape == (64, 64, 3)
