"""A checkpoint file of SD 1.x or SDXL: weights, architecture and hash, read without any network or pickle."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open  # type: ignore[attr-defined]  # missing in its older stubs
from safetensors.torch import load_file

from ..errors import ArchitectureError, FileError
from ..files import file_sha256
from ..shipped import MODELS
from ..texts import plain_text
from .sidecar import read_sidecar, read_text_config

CONFIGS = Path(__file__).parent / "configs"
TOKENIZER = MODELS / "clip"
UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
# SDXL's two text encoders: CLIP-L as transformers writes it, OpenCLIP's bigG as open_clip does.
CLIP_PREFIX, OPEN_CLIP_PREFIX = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
TEXT_PREFIXES = {"sd1": TEXT_PREFIX, "sdxl": CLIP_PREFIX}
_TOKENS = "text_model.embeddings.token_embedding.weight"
# A key that only checkpoints of that kind have, those that can be read first.
_MARKS = {
    "sd1": f"{TEXT_PREFIX}{_TOKENS}",
    "sdxl": f"{CLIP_PREFIX}{_TOKENS}",
    "SD 2.x": "cond_stage_model.model.ln_final.weight",
    "SDXL's refiner": "conditioner.embedders.0.model.ln_final.weight",
    "SD 3": "joint_blocks.0.x_block.attn.qkv.weight",
    "FLUX": "double_blocks.0.img_attn.qkv.weight",
}


def ddpm_alphas_cumprod(linear_start: float, linear_end: float, timesteps: int) -> torch.Tensor:
    """ᾱ, float32 [timesteps], for β that grow linearly in their square root (`ldm`'s schedule "linear")."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in the layout of `ldm` (SD 1.x) or `sgm` (SDXL) and the configuration that fits it."""

    path: Path
    state_dict: dict[str, torch.Tensor]
    config_path: Path
    config: dict
    """In `ldm`'s words; see `sidecar.read_sidecar`."""
    sha256: str
    family: str
    """"sd1" or "sdxl"."""

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under `prefix`, without it."""
        return {key[len(prefix) :]: value for key, value in self.state_dict.items() if key.startswith(prefix)}

    def text_config(self) -> dict:
        """Arguments of transformers' CLIPTextConfig: beside the checkpoint where there is one, else CLIP-L's.

        Raises ArchitectureError when it is not that of the text encoder's weights.
        """
        params = self.config["model"]["params"]["cond_stage_config"].get("params") or {}
        # SDXL names several embedders, of which the first is CLIP-L.
        for embedder in params.get("emb_models", [])[:1]:
            params = embedder.get("params") or {}
        file = _beside(self.config_path, str(params.get("version", ""))) / "config.json"
        shapes = {key: tuple(value.shape) for key, value in self.part(TEXT_PREFIXES[self.family]).items()}
        try:
            return read_text_config(file if file.is_file() else CONFIGS / "clip_l.json", shapes)
        except (ValueError, OSError) as error:
            raise self.misfit() from error

    def misfit(self) -> ArchitectureError:
        """The error for weights and a configuration that do not belong together."""
        return ArchitectureError(
            f"{self.path.name} does not fit the configuration {self.config_path.name}: put the checkpoint's own .yaml "
            "beside it, under the same name."
        )

    def alphas_cumprod(self) -> torch.Tensor:
        """ᾱ, float32 [timesteps], of the schedule that the configuration names."""
        params = self.config["model"]["params"]
        return ddpm_alphas_cumprod(float(params["linear_start"]), float(params["linear_end"]), int(params["timesteps"]))


def read_checkpoint(path: str | Path, vae: Path | None = None, sha256: str = "") -> Checkpoint:
    """Read a .safetensors checkpoint; a .yaml of the same name beside it says its architecture, else that of SD 1.5 or
    SDXL's base model is taken. The file `vae` replaces its VAE; its hash is computed unless it is known.

    Raises FileError when it is missing, damaged or no safetensors file, ArchitectureError when it is another model.
    """
    path = Path(path)
    family = check_readable(path)
    state_dict = _tensors(path)
    if vae is not None:
        check_vae(vae)
        kept = {key: value for key, value in state_dict.items() if not key.startswith(VAE_PREFIX)}
        state_dict = kept | {VAE_PREFIX + key.removeprefix(VAE_PREFIX): value for key, value in _tensors(vae).items()}
    sidecar = path.with_suffix(".yaml")
    config_path = sidecar if sidecar.is_file() else CONFIGS / {"sd1": "sd15.yaml", "sdxl": "sdxl.yaml"}[family]
    try:
        config = read_sidecar(config_path)
    except (ValueError, OSError) as error:
        raise FileError(
            f"{config_path.name} cannot be used ({plain_text(str(error), 200)}): get the checkpoint's own .yaml again."
        ) from error
    return Checkpoint(path, state_dict, config_path, config, sha256 or file_sha256(path), family)


def check_readable(path: Path) -> str:
    """The family of the checkpoint at `path`, of which only the header is read.

    Raises FileError or ArchitectureError as `read_checkpoint` does for what the header shows.
    """
    if not path.is_file():
        raise FileError(f"There is no checkpoint at {path}: check the path.")
    if path.suffix != ".safetensors":
        raise FileError(f"{path.name} is no .safetensors file: convert it first, pickled checkpoints are never opened.")
    return _family(path, _keys(path))


def check_vae(path: Path) -> None:
    """Raises FileError when the file at `path` is no VAE in a safetensors file."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise FileError(f"{path.name} is no .safetensors file: choose another VAE, or the checkpoint's own.")
    keys = {key.removeprefix(VAE_PREFIX) for key in _keys(path)}
    if not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= keys:
        raise FileError(f"{path.name} is no VAE: choose no text encoder beside the checkpoint, then try again.")


def _keys(path: Path) -> set[str]:
    with _undamaged(path):
        # Without `with`: its older stubs know no context, and it lets the file go by itself.
        return set(safe_open(path, framework="pt").keys())  # type: ignore[attr-defined]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with _undamaged(path):
        return load_file(path)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path.name} is damaged ({error}): download or copy it again.") from error


def _beside(config_path: Path, version: str) -> Path:
    """The folder that a configuration names, if it lies beside it or is the bundled one: a name like that in a
    stranger's file could lead to any folder, on Windows even to another machine."""
    # In full: within ".", the parent of a bare name, pathlib takes "../elsewhere" to lie.
    for home in (config_path.parent.absolute(), TOKENIZER):
        folder = Path(os.path.normpath(home / version))
        if not version.startswith(("\\\\", "//")) and folder.is_relative_to(home):
            return folder
    return config_path.parent


def _family(path: Path, keys: set[str]) -> str:
    """Raises ArchitectureError for a checkpoint of which no host is made."""
    if any("bitsandbytes" in key for key in keys):
        raise ArchitectureError(f"{path.name} is quantized (NF4): take the checkpoint in half precision.")
    marks = ((kind, key) for kind, mark in _MARKS.items() for key in (mark, UNET_PREFIX + mark))
    family = next((kind for kind, key in marks if key in keys), "none that is known here")
    if family in TEXT_PREFIXES and f"{UNET_PREFIX}input_blocks.0.0.weight" in keys:
        return family
    raise ArchitectureError(
        f"{path.name} is no SD 1.x or SDXL checkpoint (its architecture is {family}): take one of these."
    )
