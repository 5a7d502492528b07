"""What a hypernetwork is made of and made for; carried inside its file."""

import json
from dataclasses import dataclass, fields
from typing import Any

from ..errors import FileError
from ..lidb.basis import ALGORITHM, AnyBasis, Basis
from ..lidb.layers import Architecture, Layer
from ..lidb.stored_basis import ALGORITHM as STORED
from ..lidb.stored_basis import named_basis


@dataclass(frozen=True)
class HypernetworkConfig:
    """All that is needed to build the network again, and what it was trained for.

    `encoder` names a timm model, or an open_clip one as `open_clip:ViT-H-14/laion2b_s32b_b79k`. When `encoder_bundled`
    is false its pretrained weights come from that library and the file holds the decoder alone. `identity_width` is the
    length of the identity vector that a recogniser taught the encoder; 0 where none did.
    """

    architecture: Architecture
    basis: AnyBasis = Basis()
    encoder: str = "efficientnet_lite0"
    encoder_bundled: bool = True
    image_size: int = 128
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    width: int = 128
    depth: int = 2
    heads: int = 4
    iterations: int = 2
    identity_width: int = 0
    trigger: str = "sks"
    prompt: str = "a sks face"
    family: str = "sd1"
    checkpoint: str = ""
    checkpoint_hash: str = ""
    trained_on: str = ""
    held_out: str = ""
    made_with: str = ""

    def to_json(self) -> str:
        """One JSON object; the architecture as sorted [key, out, in] rows."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["architecture"] = [
            [layer.key, layer.out_features, layer.in_features] for layer in self.architecture.layers
        ]
        values["basis"] = self.basis.to_dict()
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "HypernetworkConfig":
        """Raises FileError when the configuration is not one that this version writes."""
        try:
            values: dict[str, Any] = json.loads(text)
            layers = tuple(Layer(str(key), int(out), int(in_)) for key, out, in_ in values.pop("architecture"))
            basis = values.pop("basis")
            if basis["algorithm"] not in (ALGORITHM, STORED) or list(layers) != sorted(layers) or not layers:
                raise ValueError("its basis or its layers are unknown")
            known = {f.name for f in fields(cls)}
            settings: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
            }
            config = cls(
                architecture=Architecture(layers),
                basis=_basis(basis),
                **settings,
            )
            config._check()
            return config
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileError(
                f"This hypernetwork's configuration cannot be used ({error}): download it again."
            ) from error

    def _check(self) -> None:
        small = {"width": 8192, "depth": 64, "heads": 256, "iterations": 64, "image_size": 2048}
        for name, limit in small.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 < value <= limit:
                raise ValueError(f"{name} is {value!r}")
        if not isinstance(self.identity_width, int) or not 0 <= self.identity_width <= 8192:
            raise ValueError(f"identity_width is {self.identity_width!r}")
        if self.width % self.heads:
            raise ValueError("its width is no multiple of its heads")


def _basis(header: dict) -> AnyBasis:
    if header["algorithm"] == STORED:
        return named_basis(header)
    return Basis(int(header["a"]), int(header["b"]), int(header["seed"]))
