"""Small SD 2 and SDXL checkpoints with random weights, made by the very code that the WebUI runs.

    python small_checkpoints.py WEBUI_ROOT EMBEDDED.safetensors CLIP_FOLDER OUT_FOLDER

Run by the WebUI's own Python: writes sd2.safetensors, sd2v.safetensors and sdxl.safetensors with a .yaml beside each.
The autoencoder is the embedded checkpoint's, so that the pictures are numbers.
"""

import sys
from pathlib import Path

OPEN_CLIP, TEXT_WIDTH = "ViT-S-32-alt", 256
CLIP_WIDTH = 64


def unet(context_dim: int, **more: object) -> dict:
    return {
        "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [2, 4], "num_res_blocks": 2,
        "channel_mult": [1, 2, 2], "num_head_channels": 32, "use_spatial_transformer": True,
        "use_linear_in_transformer": True, "transformer_depth": 1, "context_dim": context_dim, "legacy": False,
        "use_checkpoint": True, **more,
    }  # fmt: skip


def autoencoder(target: str) -> dict:
    ddconfig = {
        "attn_type": "vanilla", "double_z": True, "z_channels": 4, "resolution": 128, "in_channels": 3, "out_ch": 3,
        "ch": 32, "ch_mult": [1, 1, 2, 4], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    return {
        "target": target,
        "params": {
            "embed_dim": 4, "monitor": "val/rec_loss", "ddconfig": ddconfig,
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }  # fmt: skip


def sd2(parameterization: str) -> dict:
    """As v2-inference.yaml."""
    params = {
        "parameterization": parameterization, "linear_start": 0.00085, "linear_end": 0.0120, "timesteps": 1000,
        "first_stage_key": "jpg", "cond_stage_key": "txt", "image_size": 16, "channels": 4, "use_ema": False,
        "cond_stage_trainable": False, "conditioning_key": "crossattn", "scale_factor": 0.18215,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": unet(TEXT_WIDTH, image_size=16),
        },
        "first_stage_config": autoencoder("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
            "params": {"arch": OPEN_CLIP, "version": None, "freeze": True, "layer": "penultimate"},
        },
    }  # fmt: skip
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def sdxl(clip_folder: str) -> dict:
    """As sd_xl_base.yaml."""
    embedders = "sgm.modules.encoders.modules"
    sizes = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    emb_models = [
        {
            "is_trainable": False, "input_key": "txt", "target": f"{embedders}.FrozenCLIPEmbedder",
            "params": {"version": clip_folder, "layer": "hidden", "layer_idx": 3},
        },
        {
            "is_trainable": False, "input_key": "txt", "target": f"{embedders}.FrozenOpenCLIPEmbedder2",
            "params": {
                "arch": OPEN_CLIP, "version": None, "freeze": True, "layer": "penultimate",
                "always_return_pooled": True, "legacy": False,
            },
        },
        *(
            {
                "is_trainable": False, "input_key": key, "target": f"{embedders}.ConcatTimestepEmbedderND",
                "params": {"outdim": 256},
            }
            for key in sizes
        ),
    ]  # fmt: skip
    diffusion = "sgm.modules.diffusionmodules"
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{diffusion}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"},
    }
    params = {
        "scale_factor": 0.13025, "disable_first_stage_autocast": True,
        "denoiser_config": {"target": f"{diffusion}.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {
            "target": f"{diffusion}.openaimodel.UNetModel",
            "params": unet(
                CLIP_WIDTH + TEXT_WIDTH, adm_in_channels=TEXT_WIDTH + 6 * 256, num_classes="sequential",
                transformer_depth=[1, 1, 2], spatial_transformer_attn_type="softmax",
            ),
        },
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": emb_models}},
        "first_stage_config": autoencoder("sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
    }  # fmt: skip
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


def make(config: dict, path: Path, embedded: Path) -> None:
    """Random weights of `config`, saved in half precision."""
    import torch
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import load_file, save_file

    of_embedded = OmegaConf.to_container(OmegaConf.load(embedded.with_suffix(".yaml")))["model"]["params"]
    config["model"]["params"]["first_stage_config"]["params"] = of_embedded["first_stage_config"]["params"]
    torch.manual_seed(0)
    model = instantiate_from_config(OmegaConf.create(config).model)
    for name, parameter in model.named_parameters():
        # `ldm` starts some layers at zero; these shall do something. The WebUI divides by the mean of the text
        # encoder's output, which is zero as long as its last bias is.
        if (name.startswith("model.") and not parameter.any()) or name.endswith("ln_final.bias"):
            torch.nn.init.normal_(parameter, std=0.02)
    tensors = {key: value.half().contiguous() for key, value in model.state_dict().items() if value.is_floating_point()}
    tensors |= {key: value.half() for key, value in load_file(embedded).items() if key.startswith("first_stage_model.")}
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    OmegaConf.save(OmegaConf.create(config), path.with_suffix(".yaml"))


def main(root: str, embedded: str, clip_folder: str, out: str) -> None:
    for repository in ("stable-diffusion-stability-ai", "generative-models"):
        sys.path.insert(0, str(Path(root) / "repositories" / repository))
    import sgm.modules.encoders.modules as encoders
    from transformers import CLIPTextConfig, CLIPTextModel

    # Its folder holds no weights: the WebUI skips reading them as well.
    random = staticmethod(lambda folder, **_: CLIPTextModel(CLIPTextConfig.from_pretrained(folder)))
    encoders.CLIPTextModel = type("Random", (), {"from_pretrained": random})
    for name, config in {"sd2": sd2("eps"), "sd2v": sd2("v"), "sdxl": sdxl(clip_folder)}.items():
        make(config, Path(out) / f"{name}.safetensors", Path(embedded))


if __name__ == "__main__":
    main(*sys.argv[1:])
