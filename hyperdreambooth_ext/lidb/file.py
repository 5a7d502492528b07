"""The LiDB file: one safetensors file of about 100 KB that says by itself what it is and what it was made for.

One tensor a layer, `<kohya key>.lidb`, int8 [rank, a + b + 4]: a row holds a column of A_train, a row of B_train and
their two scales (float16, as four bytes). A value is its int8 times the scale. 192 tensors instead of 384 float ones
keep the header small; the rounding moves ΔW by about one percent.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

from ..errors import FileError
from ..files import checked_name, write_atomically
from ..shipped import MODELS
from ..texts import check_fields, plain_text
from .basis import AnyBasis, Basis, basis_from_dict, check_sizes
from .layers import Architecture, Layer, checked_layer
from .safetensors_bytes import from_file, metadata_of, to_bytes
from .stored_basis import find_basis
from .weights import LiDB

FORMAT_VERSION = 1
SUFFIX = ".lidb"
MAX_FILE_BYTES = 32_000_000
MAX_RANK = 64
MAX_LAYERS = 4096
MAX_THUMBNAIL_BYTES = 1_000_000
# Of max |A_train| · max |B_train| of one direction: with more, an exported LoRA would overflow in float16.
MAX_PRODUCT = 65_504.0
_LARGEST = 127
_SHAPE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True)
class Info:
    """What a LiDB file says about itself beside its numbers."""

    name: str = ""
    trigger: str = ""
    model_family: str = "sd1"
    checkpoint: str = ""
    checkpoint_hash: str = ""
    hypernetwork: str = ""
    start: str = ""
    steps: int = 0
    seed: int = 0
    made_with: str = ""
    thumbnail: bytes = field(default=b"", repr=False)


def path_of(folder: Path, name: str) -> Path:
    """Where the LiDB of that name is or would be. Raises UserError for a name that cannot be."""
    return Path(folder) / f"{checked_name(name)}.safetensors"


def save(path: Path, lidb: LiDB, info: Info, overwrite: bool = True) -> None:
    """Write the file atomically, then read it back and compare. Raises FileError, and then nothing is left behind.

    Without `overwrite` a file that is there already is an error, also one that came to be a moment ago.
    """
    if not all(torch.isfinite(tensor).all() for tensor in lidb.parameters):
        raise FileError("The training ended in numbers that are none, so nothing was saved: lower the learning rate.")
    tensors = {layer.key + SUFFIX: _pack(lidb, layer) for layer in lidb.architecture.layers}
    content = to_bytes(tensors, _metadata(lidb, info, tensors))
    write_atomically(Path(path), content, verify=lambda temporary: load(temporary, None), overwrite=overwrite)


def is_lidb(path: Path) -> bool:
    """Whether a file says that it is a LiDB; of files of any size only the header is read, and no error is raised."""
    try:
        return "lidb" in metadata_of(Path(path), 1 << 50)
    except FileError:
        # Somebody else's file, or one that is being written: whoever wants its tensors will hear what is wrong.
        return False


def load(path: Path, hypernetworks: Sequence[Path] | None = (MODELS,)) -> tuple[LiDB, Info]:
    """Read and check a LiDB file. Raises FileError when it is no LiDB, is damaged, or holds what cannot be.

    A basis that the file only names is looked for beside it and among the `hypernetworks` in these folders; None leaves
    it at the name, which is enough to inspect a file.
    """
    path = Path(path)
    tensors, metadata = from_file(path, MAX_FILE_BYTES)
    with _checked_header(path, metadata) as header:
        return _unpack(path, tensors, header, hypernetworks), _info(header, metadata)


def read_info(path: Path) -> Info:
    """What a LiDB file says about itself: its header alone is read, so a folder of a thousand is listed in a moment.

    Raises FileError as `load` does for what the header shows, and when the file is shorter or longer than that says.
    """
    path = Path(path)
    metadata = metadata_of(path, MAX_FILE_BYTES)
    with _checked_header(path, metadata) as header:
        return _info(header, metadata)


@contextmanager
def _checked_header(path: Path, metadata: dict[str, str]) -> Iterator[dict]:
    """The file's own JSON; what turns out to be wrong with it within this context is a FileError."""
    if "lidb" not in metadata:
        raise FileError(f"{path.name} is no LiDB file: use one that this extension saved.")
    try:
        yield json.loads(metadata["lidb"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FileError(f"{path.name} is a damaged LiDB file ({error}): make or download it again.") from error


def _pack(lidb: LiDB, layer: Layer) -> torch.Tensor:
    """One layer as int8 [rank, a + b + 4]; only the product of a row's two scales matters, so they are shared out."""
    columns = lidb.a_train[layer.key].detach().to("cpu", torch.float64).mT
    rows = lidb.b_train[layer.key].detach().to("cpu", torch.float64)
    # A direction that changes nothing is all zeros in the file.
    columns, rows = columns * rows.any(dim=1, keepdim=True), rows * columns.any(dim=1, keepdim=True)
    largest = columns.abs().amax(dim=1, keepdim=True), rows.abs().amax(dim=1, keepdim=True)
    quantized = [
        (values / most.clamp_min(1e-300) * _LARGEST).round().to(torch.int8)
        for values, most in zip((columns, rows), largest, strict=True)
    ]
    scales = _shared_out(largest[0] * largest[1] / _LARGEST**2)
    return torch.cat([*quantized, scales.view(torch.int8)], dim=1)


def _shared_out(product: torch.Tensor) -> torch.Tensor:
    """Two float16 scales [rank, 2] with this product [rank, 1].

    The first is a power of two, and the product is rounded before it is shared out, so that a file that is read and
    saved again stays the same to the bit.
    """
    mantissa, exponent = torch.frexp(product)
    mantissa = (mantissa * 2048).round() / 2048
    mantissa, more = torch.frexp(mantissa)
    exponent = exponent + more
    half = torch.div(exponent, 2, rounding_mode="floor")
    first = torch.where(product > 0, torch.ldexp(torch.ones_like(product), half), 0.0)
    return torch.cat([first, torch.ldexp(mantissa, exponent - half)], dim=1).half()


def unpack_layer(packed: torch.Tensor, a: int, b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [rank, a + b + 4] -> float32 (A_train [a, rank], B_train [rank, b]). Raises ValueError when it cannot be."""
    if packed.dtype != torch.int8 or packed.ndim != 2 or packed.shape[1] != a + b + 4:
        raise ValueError(f"a layer is {packed.dtype} {list(packed.shape)} where int8 [rank, {a + b + 4}] belongs")
    if not 1 <= packed.shape[0] <= MAX_RANK:
        raise ValueError(f"rank {packed.shape[0]} is not between 1 and {MAX_RANK}")
    scales = packed[:, -4:].contiguous().view(torch.float16).float()
    if not torch.isfinite(scales).all() or (scales < 0).any():
        raise ValueError("a scale is no positive number")
    if (scales.prod(dim=1) * _LARGEST**2 > MAX_PRODUCT).any():
        raise ValueError("a scale is larger than any training makes it")
    values = packed[:, :-4].float()
    return (values[:, :a] * scales[:, :1]).mT.contiguous(), values[:, a:] * scales[:, 1:]


def _metadata(lidb: LiDB, info: Info, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    info = replace(
        info, name=plain_text(info.name), trigger=plain_text(info.trigger), checkpoint=plain_text(info.checkpoint)
    )
    header = {key: value for key, value in asdict(info).items() if key != "thumbnail"}
    header |= {
        "format": FORMAT_VERSION,
        "basis": lidb.basis.to_dict(),
        "rank": lidb.rank,
        "shapes": [f"{layer.out_features}x{layer.in_features}" for layer in lidb.architecture.layers],
        "architecture": lidb.architecture.fingerprint,
    }
    data = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
    return {
        "lidb": json.dumps(header, sort_keys=True),
        "ss_output_name": info.name,
        "ss_network_module": "hyperdreambooth_ext.lidb",
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        **host_metadata(info, lidb.rank, "lidb"),
    }


def host_metadata(info: Info, rank: int, kind: str) -> dict[str, str]:
    """What the WebUI and kohya's tools show or search for, and tell a file's base model by (Lora's network.py)."""
    family = info.model_family
    version = {"sd1": "v1", "sd2": "v2-512", "sdxl": "xl-v1-base"}.get(family, family)
    metadata = {
        "ss_network_dim": str(rank),
        "ss_sd_model_name": info.checkpoint,
        "ss_v2": str(family == "sd2"),
        "modelspec.architecture": f"stable-diffusion-{version}/{kind}",
        "modelspec.title": info.name,
        "modelspec.trigger_phrase": info.trigger,
    }
    if info.thumbnail:
        metadata["ssmd_cover_images"] = json.dumps([base64.b64encode(info.thumbnail).decode()])
    return metadata | ({"ss_base_model_version": "sdxl_base_v1-0"} if family == "sdxl" else {})


def _unpack(path: Path, tensors: dict[str, torch.Tensor], header: dict, folders: Sequence[Path] | None) -> LiDB:
    if header["format"] != FORMAT_VERSION:
        raise FileError(f"{path.name} was made by a newer version (format {header['format']}): update the extension.")
    basis = basis_from_dict(header["basis"])
    if not 0 < len(tensors) <= MAX_LAYERS or not all(name.endswith(SUFFIX) for name in tensors):
        raise ValueError("its tensors are no LiDB layers")
    a_train, b_train, layers = {}, {}, []
    keys = sorted(name.removesuffix(SUFFIX) for name in tensors)
    for key, shape in zip(keys, header["shapes"], strict=True):
        layer = _layer(key, shape, basis)
        a, b = basis.sizes_of(layer)
        a_train[key], b_train[key] = unpack_layer(tensors[key + SUFFIX], a, b)
        if type(header["rank"]) is not int or a_train[key].shape[1] != header["rank"]:
            raise ValueError("a layer's rank differs from the file's")
        layers.append(layer)
    architecture = Architecture(tuple(layers))
    if architecture.fingerprint != header["architecture"]:
        raise ValueError("its layers are not those that it names")
    if not isinstance(basis, Basis) and folders is not None:
        basis = find_basis(basis, layers, [path.parent, *folders])
    return LiDB(architecture, basis, a_train, b_train)


def _layer(key: str, shape: str, basis: AnyBasis) -> Layer:
    sides = _SHAPE.fullmatch(shape)
    if sides is None:
        raise ValueError(f"a layer cannot be {shape[:40]!r}")
    layer = checked_layer(key, int(sides[1]), int(sides[2]))
    check_sizes(basis, layer)
    return layer


def _info(header: dict, metadata: dict[str, str]) -> Info:
    values = {f.name: header[f.name] for f in fields(Info) if f.name != "thumbnail"}
    info = Info(**values, thumbnail=_thumbnail(json.loads(metadata.get("ssmd_cover_images", "[]"))))
    check_fields(info, {"steps": (0, 2**31 - 1), "seed": (0, 2**63 - 1)})
    return info


def _thumbnail(covers: object) -> bytes:
    if not isinstance(covers, list) or not all(isinstance(cover, str) for cover in covers):
        raise ValueError("its pictures are no list of texts")
    if not covers:
        return b""
    if len(covers[0]) > MAX_THUMBNAIL_BYTES * 4 // 3 + 4:
        raise ValueError("its thumbnail is too large to be one")
    return base64.b64decode(covers[0], validate=True)
