"""An SD1-layout checkpoint file: its weights, its architecture and its hash, read without any network or pickle."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError  # type: ignore[attr-defined]  # missing in its older stubs
from safetensors.torch import load_file

from ..errors import ArchitectureError, FileError
from .schedule import ddpm_alphas_cumprod

CONFIGS = Path(__file__).parent / "configs"
TOKENIZER = Path(__file__).parents[2] / "models" / "clip"
UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."


@dataclass(frozen=True)
class Checkpoint:
    """A state dict in SD1 layout and the LDM configuration that fits it."""

    path: Path
    state_dict: dict[str, torch.Tensor]
    config_path: Path
    config: dict
    sha256: str

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under `prefix`, without it."""
        return {key[len(prefix) :]: value for key, value in self.state_dict.items() if key.startswith(prefix)}

    def text_config(self) -> dict:
        """Arguments of transformers' CLIPTextConfig: beside the checkpoint where there is one, else CLIP-L's."""
        params = self.config["model"]["params"]["cond_stage_config"].get("params", {})
        folder = self.config_path.parent / str(params.get("version", ""))
        file = folder / "config.json" if (folder / "config.json").is_file() else CONFIGS / "clip_l.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        return {key: value for key, value in settings.items() if key not in ("architectures", "model_type")}

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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .safetensors checkpoint; a .yaml of the same name beside it says its architecture, else SD 1.5's is taken.

    Raises FileError when it is missing, damaged or no safetensors file, ArchitectureError when it is no SD 1.x model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"There is no checkpoint at {path}: check the path.")
    if path.suffix != ".safetensors":
        raise FileError(f"{path.name} is no .safetensors file: convert it first, pickled checkpoints are never opened.")
    try:
        state_dict = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path.name} is damaged ({error}): download or copy it again.") from error
    _check_layout(path, state_dict)
    sidecar = path.with_suffix(".yaml")
    config_path = sidecar if sidecar.is_file() else CONFIGS / "sd15.yaml"
    config = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    return Checkpoint(path, state_dict, config_path, config, file_sha256(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_layout(path: Path, state_dict: dict[str, torch.Tensor]) -> None:
    if f"{TEXT_PREFIX}text_model.embeddings.token_embedding.weight" in state_dict and any(
        key.startswith(UNET_PREFIX) for key in state_dict
    ):
        return
    family = "SDXL" if "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in state_dict else (
        "SD 2.x" if "cond_stage_model.model.ln_final.weight" in state_dict else "none that is known here"
    )  # fmt: skip
    raise ArchitectureError(
        f"{path.name} is no SD 1.x checkpoint (its architecture is {family}): the command line takes SD 1.x only."
    )
