"""The loaded model is given back byte for byte, on the real `ldm` code: after success, error, interrupt, no memory."""

import hashlib
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from hyperdreambooth_ext.errors import TrainingError, UserError
from hyperdreambooth_ext.hosts.checkpoint import read_checkpoint
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.jobs.building import Builder
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Callbacks, Request, personalize
from hyperdreambooth_ext.shipped import HYPERNETWORK
from tests.conftest import random_lidb
from tests.hosts.ldm_model import ldm_model
from tests.pretrain.conftest import SMALL

REQUEST = Request(name="anna", start="gradient", options=FinetuneOptions(steps=2, batch=2))


@pytest.fixture(scope="module")
def sd_model(tiny, tmp_path_factory):
    """The tiny checkpoint in `ldm`, once; the tests are about nothing being left behind in it."""
    model = ldm_model(read_checkpoint(tiny.checkpoint), tmp_path_factory.mktemp("clip"))
    model.sd_checkpoint_info = SimpleNamespace(model_name="tiny", sha256="0123456789abcdef")
    return model


def everything(sd_model, webui) -> dict:
    """All that a user could notice: bytes, dtype, place, requires_grad, mode, hooks, patched classes, random state."""
    import ldm.modules.attention as attention
    import ldm.modules.diffusionmodules.model as model

    tensors = [*sd_model.named_parameters(), *sd_model.named_buffers()]
    seen = {
        name: (
            hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest(),
            tensor.dtype, tensor.device, tensor.requires_grad, tensor.grad is None, tensor.data_ptr(),
        )
        for name, tensor in tensors if tensor.ndim
    }  # fmt: skip
    for name, module in sd_model.named_modules():
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        seen[f"module {name}"] = module.training, hooks, vars(module).get("forward"), vars(module).get("checkpoint")
        seen[f"merged {name}"] = vars(module).get("network_current_names", ())
    seen["classes"] = (
        attention.CrossAttention.forward, attention.BasicTransformerBlock.forward, model.AttnBlock.forward,
        model.nonlinearity, torch.nn.Linear.forward,
    )  # fmt: skip
    seen["loaded"] = list(webui.networks.loaded_networks), webui.shared.loaded_hypernetworks
    seen["grad mode"] = torch.is_grad_enabled()
    seen["random"] = torch.get_rng_state().tolist()
    seen["busy"] = webui.call_queue.queue_lock.locked(), webui.shared.state.job
    return seen


@pytest.fixture
def busy(webui, sd_model, monkeypatch):
    """A WebUI in use: a LoRA merged by the last picture, a hypernetwork, an optimization that has no backward."""
    import ldm.modules.attention as attention

    linears = LdmHost(sd_model).linears()
    webui.networks.linears.update(linears)
    lidb = random_lidb(Architecture.of(linears), rank=1).map(lambda tensor: tensor * 0.3)
    file.save(webui.lora_dir / "last.safetensors", lidb, Info(name="last"))
    webui.networks.list_available_networks()
    webui.ours("tag").register_tag(webui.networks)
    pristine = {key: linear.weight.detach().clone() for key, linear in linears.items()}
    webui.networks.merge(webui.networks.load_network("last", webui.networks.available_networks["last"]))
    assert any(not torch.equal(pristine[key], linear.weight) for key, linear in linears.items())
    webui.shared.sd_model = webui.sd_models.model_data.sd_model = sd_model
    webui.sd_models.model_data.loaded_sd_models.append(sd_model)
    webui.shared.loaded_hypernetworks = ["the user's"]

    def without_backward(self, x, context=None, mask=None):
        raise AssertionError("an optimization was left on")

    original = attention.CrossAttention.forward
    monkeypatch.setattr(attention.CrossAttention, "forward", without_backward)
    first = next(iter(sd_model.model.parameters()))
    first.requires_grad_(True)
    yield SimpleNamespace(pristine=pristine, linears=linears)
    monkeypatch.setattr(attention.CrossAttention, "forward", original)
    webui.networks.merge()
    for module in sd_model.modules():
        for name in ("network_current_names", "network_weights_backup"):
            vars(module).pop(name, None)


def test_within_the_model_is_as_its_file_says(webui, sd_model, busy):
    before = everything(sd_model, webui)
    with webui.ours("backend").WebuiBackend().model() as host:
        assert all(torch.equal(busy.pristine[key], linear.weight) for key, linear in busy.linears.items())
        assert webui.shared.loaded_hypernetworks == [] and webui.networks.loaded_networks == []
        assert host.checkpoint_name == "tiny" and host.checkpoint_hash == "0123456789"
        assert webui.call_queue.queue_lock.locked() and webui.shared.state.job
    assert everything(sd_model, webui) == before


@pytest.mark.parametrize("on_top", [False, True])
def test_loras_own_linear_forward_waits_unless_somebody_put_another_on_top(webui, sd_model, busy, monkeypatch, on_top):
    plain = torch.nn.Linear.forward

    def loras(self, x):
        return plain(self, x)

    def somebodys(self, x):
        return loras(self, x)

    monkeypatch.setattr(webui.networks, "originals", SimpleNamespace(Linear_forward=plain), raising=False)
    monkeypatch.setattr(webui.networks, "network_Linear_forward", loras, raising=False)
    monkeypatch.setattr(torch.nn.Linear, "forward", somebodys if on_top else loras)
    before = everything(sd_model, webui)
    with webui.ours("backend").WebuiBackend().model():
        assert torch.nn.Linear.forward is (somebodys if on_top else plain)
    assert everything(sd_model, webui) == before


def test_a_picture_that_waits_for_the_model_is_noticed(webui, sd_model, busy):
    backend = webui.ours("backend").WebuiBackend()
    lock, drawn = webui.call_queue.queue_lock, threading.Event()

    def picture():
        with lock:
            drawn.set()

    assert not backend.wanted()
    with backend.model():
        assert not backend.wanted()
        thread = threading.Thread(target=picture)
        thread.start()
        while not backend.wanted():
            time.sleep(0.01)
        assert not drawn.is_set()
    assert drawn.wait(10)
    thread.join()
    assert not backend.wanted()


@pytest.mark.slow
def test_a_build_goes_on_by_itself_after_a_picture(webui, sd_model, busy, tmp_path, monkeypatch):
    backend = webui.ours("backend").WebuiBackend()
    for folder in ("builds", "made"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(backend, "builds_dir", lambda: tmp_path / "builds")
    monkeypatch.setattr(backend, "hypernetwork_dirs", lambda: [tmp_path / "made"])
    builder, seen = Builder(backend), []
    builder.start(SMALL | {"steps": 6})
    while (status := builder.status()).working:
        if not seen and status.stage == "train":
            with webui.call_queue.queue_lock:
                while (state := builder.status().state) == "running":
                    time.sleep(0.01)
            seen.append(state)
        time.sleep(0.01)
    assert seen == ["waiting"] and (status.state, status.done) == ("done", 1), status


def test_a_built_hypernetwork_and_a_downloaded_one_are_both_looked_for(webui):
    backend = webui.ours("backend").WebuiBackend()
    built, own = backend.hypernetwork_dirs()
    assert (built / HYPERNETWORK.name).exists() and own == backend.builds_dir().parent


def test_after_a_personalization_everything_is_as_before(webui, sd_model, busy, sample_photo):
    before = everything(sd_model, webui)
    with webui.ours("backend").WebuiBackend().model() as host:
        result = personalize(Photo(sample_photo), REQUEST, host)
    assert result.steps == 2 and result.info.model_family == "sd1"
    assert everything(sd_model, webui) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.cuda.OutOfMemoryError, UserError])
def test_after_an_error_in_the_middle_of_a_step(webui, sd_model, busy, sample_photo, error):
    before = everything(sd_model, webui)
    raised = error("in the middle")

    def on_step(progress):
        raise raised

    with pytest.raises(error), webui.ours("backend").WebuiBackend().model() as host:
        personalize(Photo(sample_photo), REQUEST, host, None, Callbacks(on_step=on_step))
    assert everything(sd_model, webui) == before


def test_after_no_memory_in_the_middle_of_a_layer(webui, sd_model, busy, sample_photo):
    before = everything(sd_model, webui)
    block = sd_model.model.diffusion_model.middle_block
    calls = []

    def full(*_):
        calls.append(1)
        if len(calls) > 1:
            raise torch.cuda.OutOfMemoryError("out of memory")

    handle = block.register_forward_hook(full)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError), webui.ours("backend").WebuiBackend().model() as host:
            personalize(Photo(sample_photo), REQUEST, host)
    finally:
        handle.remove()
    assert everything(sd_model, webui) == before


def test_the_webuis_interrupt_ends_the_picture_that_waits_and_not_the_training(webui, sd_model, busy):
    backend, state, progress = webui.ours("mount").backend(), webui.shared.state, webui.progress
    notes = webui.ours("entry").TagNotes()
    with backend.model():
        progress.pending_tasks["task(waits)"] = 0.0
        state.interrupted = True
        backend.report("finetune", 1, 2, None)
        assert not state.interrupted and (state.sampling_step, state.sampling_steps) == (1, 2)
        progress.pending_tasks["task(came later)"] = 0.0
    for task, interrupted in (("task(came later)", False), ("task(waits)", True), ("task(waits)", False)):
        progress.current_task = task
        state.begin(task)
        notes.process(SimpleNamespace(all_prompts=[]))
        assert state.interrupted == interrupted


def test_what_was_saved_is_forgotten_before_anybody_else_gets_the_model(webui, sd_model, busy, monkeypatch):
    module, seen = webui.ours("backend"), []
    backend = module.WebuiBackend()
    monkeypatch.setattr(
        module, "forget", lambda networks, path, models: seen.append((path, webui.call_queue.queue_lock.locked()))
    )
    with pytest.raises(RuntimeError, match="pictures"), backend.model():
        backend.saved(webui.lora_dir / "anna.safetensors")
        assert not seen, "LoRAs that were merged before are merged again when the model is given back"
        raise RuntimeError("pictures")
    assert seen == [(webui.lora_dir / "anna.safetensors", True)]


def test_what_was_written_without_the_model_is_forgotten_when_the_next_picture_begins(webui, sd_model, monkeypatch):
    seen, lora = [], webui.lora_dir / "anna_lora.safetensors"
    monkeypatch.setattr(webui.ours("backend"), "forget", lambda networks, path, models: seen.append(path))
    webui.ours("mount").backend().saved(lora)
    assert not seen, "a picture that is being made may have it in its weights"
    for _ in range(2):
        webui.ours("entry").TagNotes().process(SimpleNamespace(all_prompts=[]))
        assert seen == [lora]


def test_a_build_sees_a_picture_that_is_being_made(webui, sd_model, busy):
    backend = webui.ours("backend").WebuiBackend()
    with webui.call_queue.queue_lock:
        seen = []
        thread = threading.Thread(target=lambda: seen.append(backend.wanted()))
        thread.start()
        thread.join()
    assert seen == [True] and not backend.wanted()


def test_the_built_in_model_can_be_tried_where_there_is_no_other(webui, sd_model, busy):
    backend, models = webui.ours("backend").WebuiBackend(), webui.sd_models
    name = webui.ours("bundled").NAME
    assert not backend.can_try(), "another checkpoint is loaded"
    models.model_data.sd_model = None
    assert backend.can_try()
    models.checkpoints_list["other"] = SimpleNamespace(model_name="other", title="other")
    assert not backend.can_try()
    webui.shared.cmd_opts.ckpt_dir = str(webui.lora_dir / "checkpoints")
    models.list_models = lambda: models.checkpoints_list.update({name: SimpleNamespace(model_name=name, title=name)})
    backend.load_bundled()
    assert models.model_data.sd_model.model_name == name
    assert (webui.lora_dir / "checkpoints" / f"{name}.safetensors").exists()


def test_what_was_learned_on_a_busy_webui_equals_what_a_quiet_one_learns(webui, sd_model, busy, sample_photo):
    def learn():
        with webui.ours("backend").WebuiBackend().model() as host:
            return personalize(Photo(sample_photo), REQUEST, host).lidb

    with_lora = learn()
    webui.networks.merge()
    webui.shared.loaded_hypernetworks = []
    without = learn()
    assert all(torch.equal(a, b) for a, b in zip(with_lora.parameters, without.parameters, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("parameterization", ["eps", "v"])
@pytest.mark.usefixtures("one_thread")
def test_precisions_and_parameterizations(webui, tiny, tmp_path_factory, sample_photo, dtype, parameterization):
    model = ldm_model(read_checkpoint(tiny.checkpoint), tmp_path_factory.mktemp("clip"))
    schedule = model.alphas_cumprod
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            # Autocast casts these by itself on graphics cards, not on the CPU.
            module.float()
    model.alphas_cumprod_original = schedule
    model.parameterization = parameterization
    webui.shared.sd_model = webui.sd_models.model_data.sd_model = model
    webui.devices.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    before = everything(model, webui)
    with webui.ours("backend").WebuiBackend().model() as host:
        assert host.prediction_type == ("epsilon" if parameterization == "eps" else "v_prediction")
        assert torch.equal(host.alphas_cumprod, schedule.float())
        result = personalize(Photo(sample_photo), REQUEST, host)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in result.lidb.parameters[:3])
    assert everything(model, webui) == before


def test_under_medvram_the_same_part_is_on_the_gpu_afterwards(webui, sd_model, busy):
    part, moved = torch.nn.Linear(1, 1), []
    webui.lowvram.module_in_gpu = part
    part.to = moved.append
    sd_model.lowvram = True
    try:
        with webui.ours("backend").WebuiBackend().model():
            webui.lowvram.module_in_gpu = sd_model.model
    finally:
        del sd_model.lowvram
    assert webui.lowvram.module_in_gpu is part and moved == [webui.devices.device]


def _lowvram(webui, sd_model):
    webui.shared.cmd_opts.lowvram = True


def _tensorrt(webui, sd_model):
    webui.sd_unet.current_unet = torch.nn.Module()


def _fp8(webui, sd_model):
    webui.devices.fp8 = True


def _sd3(webui, sd_model):
    sd_model.is_sd3 = True


def _forge(webui, sd_model):
    sd_model.forge_objects = object()


def _inpainting(webui, sd_model):
    sd_model.model.diffusion_model.in_channels = 9


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_lowvram, "runs with lowvram, .* start it with medvram instead."),
        (_tensorrt, "replacement UNet .* to None."),
        (_fp8, "stored as FP8"),
        (_sd3, "SD 3 cannot be personalized yet"),
        (_forge, "cannot be unloaded: personalize elsewhere"),
        (_inpainting, "as for inpainting"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_a_sentence(webui, sd_model, change, sentence):
    backend = webui.ours("backend").WebuiBackend()
    webui.shared.sd_model = webui.sd_models.model_data.sd_model = sd_model
    assert backend.unfit() == ""
    try:
        change(webui, sd_model)
        with pytest.raises(UserError, match=sentence), backend.model():
            pass
        assert not webui.call_queue.queue_lock.locked()
    finally:
        for name in ("is_sd3", "forge_objects"):
            vars(sd_model).pop(name, None)
        sd_model.model.diffusion_model.in_channels = 4


def test_before_a_model_is_loaded_nothing_is_refused_and_nothing_loaded(webui):
    assert webui.ours("backend").WebuiBackend().unfit() == ""


def test_after_saving_the_cached_text_conditions_are_gone(webui, sd_model, busy):
    kinds = webui.processing
    lists = (
        kinds.StableDiffusionProcessing.cached_c, kinds.StableDiffusionProcessing.cached_uc,
        kinds.StableDiffusionProcessingTxt2Img.cached_hr_c, kinds.StableDiffusionProcessingTxt2Img.cached_hr_uc,
    )  # fmt: skip
    for cached in lists:
        cached[:] = ["key", "condition"]
    backend = webui.ours("backend").WebuiBackend()
    with backend.model():
        backend.saved(webui.lora_dir / "last.safetensors")
    assert all(cached == [None, None] for cached in lists)
    assert all(torch.equal(busy.pristine[key], linear.weight) for key, linear in busy.linears.items())


def test_a_vae_that_overflows_is_told(webui, sd_model, monkeypatch):
    host = LdmHost(sd_model)
    monkeypatch.setattr(sd_model, "scale_factor", float("inf"))
    with pytest.raises(TrainingError, match="no-half-vae"):
        host.encode_images(torch.zeros(1, 3, 64, 64))
