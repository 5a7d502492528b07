"""The model is given back: whatever happens to a job, on whichever host and in whichever precision.

{success, exception at every stage, in a layer and in the backward pass, interrupt at every stage, no memory, NaN, the
model switched meanwhile, the UI reloaded, two users at once} x {fp32, fp16, bf16, fp8} x {the real `ldm` code in the
WebUI's place, our own window on diffusers}. Every case is one test. By default each row runs in one precision of
each host; HDB_MATRIX=full runs them all.
"""

import copy
import os
import random
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hosts.checkpoint import read_checkpoint
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.jobs.jobs import Studio
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.layers import Architecture
from tests import half
from tests.conftest import random_lidb
from tests.hosts.ldm_model import ldm_model
from tests.snapshot import differences, parts, snapshot
from tests.studio import WatchedBackend, ended, short_task

STAGES = ("face", "predict", "finetune", "saving", "pictures")
ROWS = (
    "success", *(f"exception at {stage}" for stage in STAGES), "exception in a layer", "exception in the backward pass",
    *(f"interrupt at {stage}" for stage in STAGES), "out of memory", "no CUDA memory", "nan",
    "model switched meanwhile", "ui reloaded", "two users at once",
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
if hasattr(torch, "float8_e4m3fn"):
    DTYPES["fp8"] = torch.float8_e4m3fn
HOSTS = ("webui", "window")
FULL = os.environ.get("HDB_MATRIX") == "full"
CASES = [
    (host, dtype, row)
    for h, host in enumerate(HOSTS)
    for d, dtype in enumerate(DTYPES)
    for r, row in enumerate(ROWS)
    if FULL or (r + 2 * h) % len(DTYPES) == d
]
pytestmark = pytest.mark.usefixtures("safe_half")


@pytest.fixture(scope="module", autouse=True)
def safe_half():
    with half.made_safe():
        yield


@dataclass
class Program:
    """A program with a loaded model, and the handles that a test pulls."""

    studio: Studio
    models: list[nn.Module]
    middle: nn.Module
    refused: bool = False
    on_report: Any = lambda stage, step: None
    switch: Any = lambda: None
    reload: Any = lambda: None
    extra: Any = lambda: None
    undo: list = field(default_factory=list)


@pytest.fixture(scope="module")
def ldm_in(tiny, tmp_path_factory):
    """dtype -> the tiny checkpoint in the real `ldm` code, made once for each."""
    made: dict[str, nn.Module] = {}

    def model(dtype: str) -> nn.Module:
        if not made:
            made["fp32"] = ldm_model(read_checkpoint(tiny.checkpoint), tmp_path_factory.mktemp("clip"))
            made["fp32"].sd_checkpoint_info = SimpleNamespace(model_name="tiny", sha256="0123456789abcdef")
        if dtype not in made:
            made[dtype] = _cast(copy.deepcopy(made["fp32"]), DTYPES[dtype])
        return made[dtype]

    return model


@pytest.fixture(scope="module")
def diffusers_in(tiny):
    """dtype -> the same as our own window holds it."""
    made: dict[str, DiffusersHost] = {}

    def host(dtype: str) -> DiffusersHost:
        if not made:
            made["fp32"] = tiny.host()
        if dtype not in made:
            made[dtype] = copy.deepcopy(made["fp32"])
            made[dtype].dtype = DTYPES[dtype]
            for part in parts(("unet", "text_encoder"), made[dtype]):
                part.to(DTYPES[dtype])
        return made[dtype]

    return host


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    schedule = model.alphas_cumprod
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            # Autocast casts these by itself on graphics cards, not on the CPU.
            module.float()
    model.alphas_cumprod_original = schedule
    return model


@pytest.fixture
def program(request, webui, ldm_in, diffusers_in, loaded_backend, tmp_path):
    host, dtype, _ = request.param
    if host == "webui":
        made = _webui(webui, ldm_in(dtype), dtype)
    else:
        made = _window(diffusers_in(dtype), loaded_backend, tmp_path)
    yield made
    for undo in made.undo:
        undo()


def _webui(webui, sd_model: nn.Module, dtype: str) -> Program:
    """The WebUI in use: the last picture's LoRA is merged, a hypernetwork is loaded, a parameter asks for gradients."""
    linears = LdmHost(sd_model).linears()
    webui.networks.linears.update(linears)
    if dtype != "fp8":
        lidb = random_lidb(Architecture.of(linears)).map(lambda tensor: tensor * 0.1)
        file.save(webui.lora_dir / "last.safetensors", lidb, file.Info(name="last"))
        webui.networks.list_available_networks()
        webui.ours("tag").register_tag(webui.networks)
        webui.networks.merge(webui.networks.load_network("last", webui.networks.available_networks["last"]))
    webui.shared.sd_model = webui.sd_models.model_data.sd_model = sd_model
    webui.sd_models.model_data.loaded_sd_models.append(sd_model)
    webui.shared.loaded_hypernetworks = ["the user's"]
    webui.devices.fp8 = dtype == "fp8"
    webui.devices.dtype = DTYPES[dtype]
    webui.devices.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != "fp32")
    next(iter(sd_model.model.parameters())).requires_grad_(True)
    other = nn.Linear(3, 3)
    studio = Studio(webui.ours("backend").WebuiBackend())
    made = Program(studio, [sd_model, other], sd_model.model.diffusion_model.middle_block, dtype == "fp8")
    report = made.studio.backend.report

    def watched(stage, step, steps, preview):
        report(stage, step, steps, preview)
        made.on_report(stage, step)

    def switch():
        webui.shared.sd_model = webui.sd_models.model_data.sd_model = other

    def reload():
        # Building a page is gradio's work: it draws random numbers and sets variables of the environment.
        drawn, environment = random.getstate(), dict(os.environ)
        webui.script_callbacks.callback_map["callbacks_ui_tabs"].clear()
        webui.ours("entry").register()
        webui.ours("mount").tabs()
        random.setstate(drawn)
        os.environ.clear()
        os.environ.update(environment)

    def restore():
        webui.devices.dtype = torch.float32
        webui.networks.merge()
        for module in sd_model.modules():
            for name in ("network_current_names", "network_weights_backup"):
                vars(module).pop(name, None)

    made.studio.backend.report, made.switch, made.reload = watched, switch, reload
    made.extra = lambda: (
        list(webui.networks.loaded_networks), webui.shared.loaded_hypernetworks, webui.call_queue.queue_lock.locked(),
        webui.shared.state.job, [vars(m).get("network_current_names") for m in sd_model.modules()], _patched_classes(),
    )  # fmt: skip
    made.undo.append(restore)
    return made


def _window(host: DiffusersHost, loaded_backend: WatchedBackend, folder) -> Program:
    backend = loaded_backend.again(folder / "lidb")
    backend._host = host
    made = Program(Studio(backend), parts(("unet", "vae", "text_encoder"), host), host.unet.mid_block)
    backend.on_report = lambda stage, step: made.on_report(stage, step)
    made.extra = lambda: backend._lock.locked()
    # There is no other model to switch to: somebody draws meanwhile, and has to wait.
    made.switch = lambda: threading.Thread(target=lambda: _draw(backend), daemon=True).start()
    made.reload = lambda: [made.studio.job(job.id) for job in made.studio.jobs()]
    return made


def _draw(backend: WatchedBackend) -> None:
    with backend.model() as host:
        assert not any("forward" in vars(module) for module in host.linears().values())


def _patched_classes() -> tuple:
    import ldm.modules.attention as attention
    import ldm.modules.diffusionmodules.model as model

    return attention.CrossAttention.forward, model.AttnBlock.forward, model.nonlinearity


class Broken(Exception):
    """Something that nobody foresaw."""


def _at(program: Program, wanted: str, act) -> None:
    def report(stage, step):
        if stage == wanted and not acted:
            acted.append(stage)
            act()

    acted: list[str] = []
    program.on_report = report


def _hooked(program: Program, act) -> None:
    """`act(output)` each time that the middle of the UNet has computed; put there before anything is looked at."""
    handle = program.middle.register_forward_hook(lambda module, inputs, output: act(output))
    program.undo.append(handle.remove)


def _raise(error: BaseException):
    raise error


def _no_memory(output):
    return output + torch.empty(1 << 60)[0]  # the allocator itself says no


def _broken_backward(output):
    if output.requires_grad:
        output.register_hook(lambda gradient: _raise(Broken("in the backward pass")))


def arrange(program: Program, row: str) -> None:
    """Let happen what the row says; hooks of the test's own are there before and after."""
    what, _, stage = row.partition(" at ")
    if what == "exception":
        _at(program, stage, lambda: _raise(Broken(stage)))
    elif what == "interrupt":
        _at(program, stage, lambda: program.studio.interrupt(program.studio.jobs()[-1].id))
    elif row == "model switched meanwhile":
        _at(program, "finetune", program.switch)
    elif row == "ui reloaded":
        _at(program, "finetune", program.reload)
    hooks = {
        "exception in a layer": lambda output: _raise(Broken("in a layer")),
        "exception in the backward pass": _broken_backward,
        "out of memory": _no_memory,
        "no CUDA memory": lambda output: _raise(torch.cuda.OutOfMemoryError("out of memory")),
        "nan": lambda output: output * float("nan"),
    }
    if row in hooks:
        _hooked(program, hooks[row])


def computes(dtype: str) -> bool:
    """Whether this torch computes on the CPU with weights of this kind, without autocast."""
    try:
        nn.functional.linear(torch.ones(1, 1, dtype=DTYPES[dtype]), torch.ones(1, 1, dtype=DTYPES[dtype]))
        nn.functional.conv2d(torch.ones(1, 1, 1, 1, dtype=DTYPES[dtype]), torch.ones(1, 1, 1, 1, dtype=DTYPES[dtype]))
    except RuntimeError:
        return False
    return True


def _jobs(program: Program, row: str, photo) -> list:
    if row != "two users at once":
        return [program.studio.submit(short_task(photo, "anna"))]
    ids: list[str] = []
    users = [
        threading.Thread(target=lambda name=name: ids.append(program.studio.submit(short_task(photo, name))))
        for name in ("anna", "bea")
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()
    return ids


EXPECTED = {
    "success": "done", "interrupt at saving": "done", "interrupt at pictures": "done", "ui reloaded": "done",
    "two users at once": "done", "model switched meanwhile": "done",
}  # fmt: skip


@pytest.mark.parametrize(("program", "row"), [(case, case[2]) for case in CASES], indirect=["program"],
                         ids=[f"{host}-{dtype}-{row.replace(' ', '_')}" for host, dtype, row in CASES])  # fmt: skip
def test_everything_is_as_before(program, row, small_photo, request):
    host, dtype, _ = request.node.callspec.params["program"]
    arrange(program, row)
    before = snapshot(*program.models), program.extra()
    if program.refused:
        with pytest.raises(UserError, match="stored as FP8"):
            program.studio.submit(short_task(small_photo, "anna"))
        stages = ["refused"]
    else:
        stages = [ended(program.studio, id).stage for id in _jobs(program, row, small_photo)]
    with program.studio.backend._lock if host == "window" else threading.Lock():
        after = snapshot(*program.models), program.extra()
    assert differences(before[0], after[0]) == []
    if host == "webui":
        assert before[1] == after[1]
    # In float16 `ldm` needs a graphics card: here it fails in its first layer, and must give everything back as well.
    runs = dtype != "fp16" if host == "webui" else computes(dtype)
    if runs and stages != ["refused"]:
        wanted = EXPECTED.get(row, "cancelled" if row.startswith("interrupt") else "failed")
        assert set(stages) == {wanted}, program.studio.jobs()
