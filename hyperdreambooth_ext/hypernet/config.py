"""What a hypernetwork is made of and made for; carried inside its file."""

import json
from dataclasses import astuple, dataclass, fields
from typing import Any

from ..errors import FileError
from ..images.face import FRAMINGS
from ..lidb.basis import AnyBasis, Basis, basis_from_dict, check_sizes
from ..lidb.file import MAX_LAYERS
from ..lidb.layers import Architecture, Layer, checked_layer
from ..texts import check_fields
from .latent_identity import WIDTH as LATENT_IDENTITY_WIDTH

# What version 0.1 called two of the fields.
_FORMER = {"centred": "centered", "readers": "identity_nets"}

DEFAULT_TRIGGER = "sks"


@dataclass(frozen=True)
class HypernetworkConfig:
    """All that is needed to build the network again, and what it was trained for.

    `encoder` names a timm model, or an open_clip one as `open_clip:ViT-H-14/laion2b_s32b_b79k`. When `encoder_bundled`
    is false its pretrained weights come from that library and the file holds the decoder alone. `identity_width` is the
    length of the encoder's identity vector; 0 where no recognizer trained it. `centered` takes off it what all the
    training faces have in common. So many `identity_nets`, which see such identities in the checkpoint's latents, are
    in the file, too, for the finetune's identity loss. `through_autoencoder` says that it learned from faces that the
    checkpoint sampled: a photo is shown to it as the autoencoder gives it back. `framing` is that of its faces: one
    of `images.face.FRAMINGS`.
    """

    architecture: Architecture
    basis: AnyBasis = Basis()
    encoder: str = "efficientnet_lite0"
    encoder_bundled: bool = True
    framing: str = "face"
    image_size: int = 128
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    width: int = 128
    depth: int = 2
    heads: int = 4
    iterations: int = 2
    identity_width: int = 0
    centered: bool = False
    identity_nets: int = 0
    through_autoencoder: bool = False
    trigger: str = DEFAULT_TRIGGER
    prompt: str = f"a {DEFAULT_TRIGGER} face"
    family: str = "sd1"
    checkpoint: str = ""
    checkpoint_hash: str = ""
    trained_on: str = ""
    held_out: str = ""
    made_with: str = ""

    def to_json(self) -> str:
        """One JSON object; the architecture as sorted [key, out, in] rows."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["architecture"] = [astuple(layer) for layer in self.architecture.layers]
        values["basis"] = self.basis.to_dict()
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "HypernetworkConfig":
        """Raises FileError when the configuration is not one that this version writes."""
        try:
            values: dict[str, Any] = json.loads(text)
            layers = _layers(values.pop("architecture"))
            basis = basis_from_dict(values.pop("basis"))
            for layer in layers:
                check_sizes(basis, layer)
            values = {_FORMER.get(name, name): value for name, value in values.items()}
            known = {f.name for f in fields(cls)}
            settings: dict[str, Any] = {name: value for name, value in values.items() if name in known}
            settings |= {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
            config = cls(architecture=Architecture(layers), basis=basis, **settings)
            config._check()
            return config
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            raise FileError(f"The hypernetwork's configuration is damaged ({error}): download it again.") from error

    def _check(self) -> None:
        # The encoder is tried on one picture of this size when it is made.
        check_fields(self, {
            "width": (1, 8192), "depth": (1, 64), "heads": (1, 256), "iterations": (1, 64), "image_size": (1, 640),
            "identity_width": (0, 8192), "identity_nets": (0, 8),
        })  # fmt: skip
        if self.identity_nets and self.identity_width != LATENT_IDENTITY_WIDTH:
            raise ValueError("its identity_nets know other identities than its encoder")
        if self.framing not in FRAMINGS:
            raise ValueError(f"it knows no framing {self.framing!r}")
        if self.width % self.heads:
            raise ValueError("its width is no multiple of its heads")
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if type(values) is not tuple or len(values) != 3 or not all(type(value) is float for value in values):
                raise ValueError(f"{name} is no three numbers")
        if not all(-10 <= mean <= 10 for mean in self.image_mean) or not all(1e-3 <= s <= 1e3 for s in self.image_std):
            raise ValueError("its pictures' mean or spread cannot be")


def _layers(rows: list) -> tuple[Layer, ...]:
    """Raises ValueError or TypeError for what is no sorted list of [key, out, in]."""
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_LAYERS:
        raise ValueError("it names no layers, or too many")
    layers = tuple(checked_layer(key, out, in_) for key, out, in_ in rows)
    if list(layers) != sorted(set(layers)):
        raise ValueError("its layers are in no order, or named twice")
    return layers
