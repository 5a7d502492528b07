"""From a host's modules to kohya's keys, which files are written in."""

from collections.abc import Callable, Sequence

from torch import nn

from ..lidb.layers import kohya_key


def kohya_linears(
    unet: nn.Module, text_encoder: nn.Module | None, unet_name: Callable[[str], str] = lambda name: name
) -> dict[str, nn.Linear]:
    """kohya key -> module, for all linear layers of both (of the UNet alone without a text encoder).

    `unet_name` turns a UNet module's name into the one that keys are made of.
    """
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear):
            found[kohya_key("lora_unet", unet_name(name))] = module
    return found if text_encoder is None else found | text_linears("lora_te", text_encoder)


def text_linears(prefix: str, text_encoder: nn.Module) -> dict[str, nn.Linear]:
    """kohya key -> module, for all linear layers of one of transformers' text encoders; SDXL's two have the prefixes
    `lora_te1` and `lora_te2`."""
    found = {}
    for name, module in text_encoder.named_modules():
        if isinstance(module, nn.Linear):
            # transformers 5 has no `text_model` level any more; files keep the old name.
            name = name if name.startswith("text_model.") else f"text_model.{name}"
            found[kohya_key(prefix, name)] = module
    return found


def diffusers_name(name: str, num_res_blocks: int | Sequence[int]) -> str:
    """A UNet module's name in `ldm` -> its name in diffusers, which kohya's keys are made of.

    Only transformer blocks are renamed; any other name comes back as it is.
    """
    parts = name.split(".")
    per_level = num_res_blocks if isinstance(num_res_blocks, int) else num_res_blocks[0]
    if parts[0] == "middle_block" and parts[1:2] == ["1"]:
        return ".".join(["mid_block", "attentions", "0", *parts[2:]])
    if parts[0] == "input_blocks" and parts[2:3] == ["1"] and int(parts[1]) > 0:
        # input_blocks.0 is the first convolution; each level then has its blocks and one downsampler.
        level, block = divmod(int(parts[1]) - 1, per_level + 1)
        return ".".join(["down_blocks", str(level), "attentions", str(block), *parts[3:]])
    if parts[0] == "output_blocks" and parts[2:3] == ["1"]:
        level, block = divmod(int(parts[1]), per_level + 1)
        return ".".join(["up_blocks", str(level), "attentions", str(block), *parts[3:]])
    return name


def sgm_name(name: str, num_res_blocks: int) -> str:
    """The inverse of `diffusers_name`: kohya's keys of SDXL are made of the names in `sgm`."""
    parts = name.split(".")
    if parts[:3] == ["mid_block", "attentions", "0"]:
        return ".".join(["middle_block", "1", *parts[3:]])
    side, before = {"down_blocks": ("input_blocks", 1), "up_blocks": ("output_blocks", 0)}.get(parts[0], ("", 0))
    if not side or parts[2:3] != ["attentions"]:
        return name
    index = before + int(parts[1]) * (num_res_blocks + 1) + int(parts[3])
    return ".".join([side, str(index), "1", *parts[4:]])
