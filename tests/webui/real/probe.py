"""An extension for the tests alone, the script of `hdb-probe`: shows over HTTP what is inside a running WebUI."""

import hashlib
import time
from typing import Any

import torch
from fastapi import Body
from modules import infotext_utils, script_callbacks, scripts, sd_hijack, shared

comments: list[str] = []
steps: list[float] = []


class Comments(scripts.Script):
    def title(self):
        return "hdb-probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process(self, p, *args):
        comments.clear()
        steps.clear()

    def postprocess(self, p, processed, *args):
        # `processed.comments` is made before the last comment of hires fix; the page shows these.
        comments[:] = list(p.comments)


def inside() -> dict[str, Any]:
    """Every weight's and buffer's bytes, dtype, place and requires_grad, modes, hooks, optimizations."""
    sd_model, digest, kinds = shared.sd_model, hashlib.sha256(), {}
    for name, tensor in [*sd_model.named_parameters(), *sd_model.named_buffers()]:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        facts = name, tensor.dtype, tensor.device, tensor.requires_grad, tensor.grad is None, tensor.data_ptr()
        digest.update(str(facts).encode() + data)
        kinds[str(tensor.dtype)] = kinds.get(str(tensor.dtype), 0) + 1
    for name, module in sd_model.named_modules():
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        digest.update(f"{name} {module.training} {hooks} {'forward' in vars(module)}".encode())
    merged = sum(bool(getattr(module, "network_current_names", ())) for module in sd_model.modules())
    places = []
    for library in (sd_hijack.ldm, sd_hijack.sgm):
        model = library.modules.diffusionmodules.model
        attention = library.modules.attention
        places += [attention.CrossAttention.forward, attention.BasicTransformerBlock.forward]
        places += [model.AttnBlock.forward, model.nonlinearity]
    return {
        "model": digest.hexdigest(), "dtypes": kinds, "merged": merged, "job": shared.state.job,
        "optimizations": [id(place) for place in places],
        "optimizer": getattr(sd_hijack.current_optimizer, "name", ""),
    }  # fmt: skip


def pasted(text: str = Body(embed=True)) -> dict[str, Any]:
    """What pasting this infotext gives."""
    params = infotext_utils.parse_generation_parameters(text)
    script_callbacks.infotext_pasted_callback(text, params)
    return params


def no_memory() -> None:
    """The graphics card's memory is full in the UNet's third run from now."""
    unet, runs = shared.sd_model.model.diffusion_model, []

    def full(*_):
        runs.append(1)
        if len(runs) == 3:
            handle.remove()
            raise torch.cuda.OutOfMemoryError("out of memory")

    handle = unet.middle_block.register_forward_hook(full)


def tab_seconds() -> float:
    """How long building our tab takes."""
    started = time.process_time()
    for callback in script_callbacks.callback_map["callbacks_ui_tabs"]:
        if callback.script.endswith("entry.py"):
            callback.callback()
    return time.process_time() - started


def add_routes(demo, app):
    app.add_api_route("/probe/inside", inside)
    app.add_api_route("/probe/comments", lambda: comments)
    app.add_api_route("/probe/steps", lambda: steps)
    app.add_api_route("/probe/pasted", pasted, methods=["POST"])
    app.add_api_route("/probe/no-memory", no_memory, methods=["POST"])
    app.add_api_route("/probe/reload", lambda: shared.state.request_restart(), methods=["POST"])
    app.add_api_route("/probe/tab-seconds", tab_seconds)


script_callbacks.on_app_started(add_routes)
script_callbacks.on_cfg_denoiser(lambda params: steps.append(time.process_time()))
