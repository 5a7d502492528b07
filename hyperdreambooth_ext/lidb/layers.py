"""Which layers a LiDB changes, and what they are called in a file."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from ..errors import ArchitectureError

# The paper's counts (386 K numbers for a rank-1 LoRA, 30 K for a LiDB) come out with exactly these on SD 1.5:
# 128 attention projections and 16 GEGLU projections in the UNet, 48 attention projections in the text encoder.
GROUPS: dict[str, re.Pattern] = {
    "unet_attention": re.compile(r"lora_unet_.*_attn[12]_to_(q|k|v|out_0)$"),
    "unet_geglu": re.compile(r"lora_unet_.*_ff_net_0_proj$"),
    "text_attention": re.compile(r"lora_te_.*_self_attn_(q|k|v|out)_proj$"),
    # SDXL's two text encoders: a file may change them, and says so by its keys. By default none does, for the size:
    # the option "Train the text encoder too" asks for it.
    "sdxl_text_attention": re.compile(r"lora_te[12]_.*_self_attn_(q|k|v|out)_proj$"),
}
DEFAULT_GROUPS = ("unet_attention", "unet_geglu", "text_attention")


@dataclass(frozen=True, order=True)
class Layer:
    """A linear layer that can be changed: its key as kohya's tools write it, and its shape."""

    key: str
    out_features: int
    in_features: int


# What a file may ask for: any layer of any Stable Diffusion is far below all of these.
MAX_WIDTH, MAX_ROWS, MAX_NUMBERS = 65_536, 4096, 1 << 22
_KEY = re.compile(r"lora_[A-Za-z0-9_]{1,250}")


def checked_layer(key: str, out_features: int, in_features: int) -> Layer:
    """A layer that a file names. Raises ValueError when none can be called so, or has such sides."""
    if type(key) is not str or not _KEY.fullmatch(key):
        raise ValueError(f"no layer is called {str(key)[:40]!r}")
    if type(out_features) is not int or type(in_features) is not int:
        raise ValueError("a layer's sides are no whole numbers")
    return Layer(key, out_features, in_features)


@dataclass(frozen=True)
class Architecture:
    """The layers of a model, sorted by key. Two models with equal fingerprints take each other's LiDBs."""

    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, linears: Mapping[str, nn.Linear], groups: Iterable[str] = DEFAULT_GROUPS) -> "Architecture":
        """The layers of `linears` (kohya key -> module) that belong to `groups`.

        Raises ArchitectureError when there are none.
        """
        patterns = [GROUPS[group] for group in groups]
        layers = sorted(
            Layer(key, linear.out_features, linear.in_features)
            for key, linear in linears.items()
            if any(pattern.fullmatch(key) for pattern in patterns)
        )
        if not layers:
            raise ArchitectureError("This model has no attention layers for a LiDB: load an SD 1.x or SDXL model.")
        return cls(tuple(layers))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name all keys and shapes."""
        lines = "\n".join(f"{layer.key} {layer.out_features} {layer.in_features}" for layer in self.layers)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.layers)


def kohya_key(prefix: str, module_name: str) -> str:
    """`lora_unet` + `down_blocks.0.…attn1.to_q` -> `lora_unet_down_blocks_0_…attn1_to_q`."""
    return f"{prefix}_{module_name.replace('.', '_')}"
