"""The model as `ldm` or `sgm` holds it: what the WebUI has loaded as `shared.sd_model`, or one of one's own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..errors import ArchitectureError, TrainingError
from . import modules
from .conditioning import embedded_sizes, pack, unpack
from .naming import diffusers_name, kohya_linears

LATENT_CHANNELS = 4
# The width of the pooled vector that only SDXL's refiner takes; the base model's is 2816.
REFINER_VECTOR = 2560


class LdmHost:
    """A LatentDiffusion (SD 1.x, 2.x) or DiffusionEngine (SDXL). See `hosts.protocol.Host`.

    The model is borrowed: never copied, moved or cast. SD 1.x has UNet and text encoder in `linears()`, the other
    families the UNet alone.
    """

    # `ldm` makes tensors on the processor in every pass, and a WebUI's modules are anybody's.
    capturable = False

    def __init__(
        self,
        sd_model: nn.Module,
        checkpoint_name: str = "",
        checkpoint_hash: str = "",
        device: torch.device | None = None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        """`device` is where the model computes, if its weights may wait elsewhere; `autocast` wraps every call of it.

        Raises ArchitectureError when `sd_model` is none of these, or takes more than noise and a prompt.
        """
        self.sd_model, self.autocast = sd_model, autocast
        self.checkpoint_name, self.checkpoint_hash = checkpoint_name, checkpoint_hash
        self.unet = _unet(sd_model)
        self.family, self.text_encoder = _family(sd_model)
        _check_inputs(self.unet, self.family)
        parameter = next(self.unet.parameters())
        self.device, self.dtype = device or parameter.device, parameter.dtype
        self.prediction_type = "v_prediction" if getattr(sd_model, "parameterization", "eps") == "v" else "epsilon"
        # The WebUI keeps the trained schedule here where a setting has changed the one that it samples with.
        schedule = getattr(sd_model, "alphas_cumprod_original", None)
        schedule = sd_model.alphas_cumprod if schedule is None else schedule
        self.alphas_cumprod = schedule.detach().float().to(self.device)
        self.default_size = _default_size(sd_model, self.family, self.prediction_type)

    def linears(self) -> Mapping[str, nn.Linear]:
        if self.family == "sdxl":
            # kohya's tools name SDXL's UNet as `sgm` does.
            return kohya_linears(self.unet, None)
        per_level = self.unet.num_res_blocks
        return kohya_linears(self.unet, self.text_encoder, lambda name: diffusers_name(name, per_level))

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        # The mean, not a sample: the same photo gives the same latents. `sgm` returns only a sample, so the moments are
        # read where they are made; the generator that it samples with is given back.
        moments: list[torch.Tensor] = []
        hook = self.sd_model.first_stage_model.quant_conv.register_forward_hook(lambda *call: moments.append(call[2]))
        try:
            with torch.random.fork_rng(devices=[]), self.autocast():
                self.sd_model.encode_first_stage(images.to(self.device, self._first_stage_dtype()))
        finally:
            hook.remove()
        latents = moments[-1].float().chunk(2, dim=1)[0] * self.sd_model.scale_factor
        if not torch.isfinite(latents).all():
            raise TrainingError("The VAE overflows in half precision: use the WebUI's option no-half-vae.")
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            return self.sd_model.decode_first_stage(latents.to(self.device, self._first_stage_dtype())).float()

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """[B, 77, width]; for SDXL more rows follow that hold its pooled vector (see `conditioning`)."""
        with self.autocast():
            return pack(self.sd_model.get_learned_conditioning(list(prompts)))

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """As in the Protocol; a float16 UNet's gradients come back many times larger (see `_unscaled`)."""
        embeds = prompt_embeds.to(self.dtype)
        condition = self._sized(embeds, latents) if self.family == "sdxl" else embeds
        with self.autocast():
            output = self.sd_model.apply_model(latents.to(self.dtype), timesteps, condition).float()
        return _unscaled(output) if self.dtype == torch.float16 else output

    def _sized(self, embeds: torch.Tensor, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """SDXL's condition for pictures of this size; the WebUI takes 1024 x 1024 where it is told none."""
        condition = unpack(embeds, _vector_width(self.unet))
        sizes = embedded_sizes(latents).to(embeds)
        return condition | {"vector": torch.cat([condition["vector"][:, : -sizes.shape[1]], sizes], dim=1)}

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen((self.sd_model,))

    def _first_stage_dtype(self) -> torch.dtype:
        return next(self.sd_model.first_stage_model.parameters()).dtype


def _unscaled(output: torch.Tensor) -> torch.Tensor:
    """`output`, whose gradient is multiplied by a large number before it enters float16, where it would vanish.

    A mean over the output leaves gradients of about 1 / numel. Nobody divides by the number again: Adam and the
    gradient start take a gradient's direction, not its length. It is the same however many samples are in a pass, since
    gradients of several passes are added up.
    """
    if output.requires_grad:
        scale = output[0].numel() / 8
        output.register_hook(lambda gradient: gradient * scale)
    return output


def _unet(sd_model: nn.Module) -> nn.Module:
    try:
        return sd_model.get_submodule("model.diffusion_model")
    except AttributeError as error:
        raise ArchitectureError("The loaded model is no SD 1.x, SD 2.x or SDXL model: load one, then try again.") from (
            error
        )


def _family(sd_model: nn.Module) -> tuple[str, nn.Module | None]:
    """The family, and the text encoder whose layers are changed too."""
    conditioner = getattr(sd_model, "conditioner", None)
    if conditioner is not None:
        return "sdxl", None
    stage = getattr(sd_model, "cond_stage_model", None)
    # The WebUI wraps the embedder to add its prompt syntax.
    stage = getattr(stage, "wrapped", stage)
    transformer = getattr(stage, "transformer", None)
    if transformer is not None:
        return "sd1", transformer
    if hasattr(getattr(stage, "model", None), "transformer"):
        return "sd2", None
    raise ArchitectureError("The loaded model's text encoder is not known here: load an SD 1.x, SD 2.x or SDXL model.")


def _default_size(sd_model: nn.Module, family: str, prediction_type: str) -> int:
    size = int(getattr(sd_model, "image_size", 128 if family == "sdxl" else 64)) * 8
    # Stability's configuration for the 768-pixel model of SD 2 says 64 as well.
    return 768 if family == "sd2" and prediction_type == "v_prediction" and size == 512 else size


def _check_inputs(unet: nn.Module, family: str) -> None:
    channels = int(unet.in_channels)
    if channels != LATENT_CHANNELS:
        raise ArchitectureError(
            f"The loaded model takes {channels} channels, as for inpainting: load an ordinary text-to-image model."
        )
    if family == "sdxl" and _vector_width(unet) == REFINER_VECTOR:
        raise ArchitectureError("The loaded model is SDXL's refiner: load the base model, then try again.")
    if family != "sdxl" and getattr(unet, "num_classes", None) is not None:
        raise ArchitectureError(
            "The loaded model is made for variations of a picture (unCLIP): load an ordinary text-to-image model."
        )


def _vector_width(unet: nn.Module) -> int:
    return unet.label_emb[0][0].in_features
