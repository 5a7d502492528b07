"""Personalize in Forge and its kin: their model makes room, ours is opened from the file, and theirs comes back.

`fake/forge` is what Forge and Neo do, `fake/classic` what reForge and Forge Classic do; `test_contract.py` holds both
against what is recorded of the programs.
"""

import functools
import gc
import importlib.util
import os
import platform
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hosts.checkpoint import VAE_PREFIX
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.jobs.jobs import Studio
from hyperdreambooth_ext.lidb.file import Info, save
from hyperdreambooth_ext.personalize.options import PersonalizeOptions
from tests.snapshot import differences, settings
from tests.studio import ended, short_task

from .conftest import FAKE


@pytest.fixture(params=["forge", "classic"])
def forge(request, webui, tiny, monkeypatch):
    """Such a program with the tiny checkpoint loaded; its LoRA loader takes tables of tensors."""
    spec = importlib.util.spec_from_file_location("modules.sd_models", FAKE / request.param / "sd_models.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "modules.sd_models", module)
    monkeypatch.setattr(sys.modules["modules"], "sd_models", module, raising=False)
    spec.loader.exec_module(module)
    monkeypatch.delattr(webui.networks, "module_types")
    webui.networks.load_lora_state_dict = functools.lru_cache(maxsize=5)(load_file)
    choose(module, tiny.checkpoint)
    module.needed()
    module.asked.clear()
    return webui


def choose(sd_models, checkpoint, *modules):
    info = SimpleNamespace(filename=str(checkpoint), title="tiny", model_name="tiny", sha256="0123456789" * 6 + "abcd")
    sd_models.choose(info, modules)


def loaded(webui) -> bool:
    return hasattr(webui.sd_models.model_data.sd_model, "forge_objects")


def is_back(webui, checkpoint) -> bool:
    """Whether the next generation finds the weights of the file."""
    expected, found = load_file(checkpoint), webui.sd_models.needed().forge_objects
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_within_the_programs_model_is_out_of_memory_and_ours_can_be_trained_on(forge):
    with torch.inference_mode(), forge.ours("backend").WebuiBackend().model() as host:
        assert not loaded(forge) and forge.sd_models.asked[0] == "unload"
        assert (host.family, host.checkpoint_name, host.checkpoint_hash) == ("sd1", "tiny", "0123456789")
        assert forge.call_queue.queue_lock.locked() and forge.shared.state.job == "hyperdreambooth"
        embeds = host.encode_prompts(["a face"])
        output = host.predict(torch.zeros(1, 4, 8, 8), torch.tensor([10]), embeds)
        assert output.requires_grad and not output.is_inference()


def test_whoever_asks_for_the_model_meanwhile_loads_none(forge):
    with forge.ours("backend").WebuiBackend().model():
        forge.sd_models.model_data.get_sd_model()
        assert not loaded(forge)


@pytest.mark.parametrize("error", [None, RuntimeError, MemoryError, torch.cuda.OutOfMemoryError, KeyboardInterrupt])
def test_whatever_happens_everything_is_given_back(forge, tiny, error):
    backend, before = forge.ours("backend").WebuiBackend(), settings()
    try:
        with backend.model() as host:
            if error is not None:
                raise error("within")
    except BaseException as raised:
        assert type(raised) is error
    assert all(parameter.is_meta for part in host._parts() for parameter in part.parameters())
    assert forge.sd_models.asked[-1] == "free"
    assert not forge.call_queue.queue_lock.locked() and forge.shared.state.job == ""
    assert differences(before, settings()) == []
    assert is_back(forge, tiny.checkpoint)


def test_without_memory_for_ours_theirs_comes_back(forge, tiny, monkeypatch):
    def no_memory(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(DiffusersHost, "__init__", no_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError), forge.ours("backend").WebuiBackend().model():
        pass
    assert not forge.call_queue.queue_lock.locked() and is_back(forge, tiny.checkpoint)


def test_after_several_jobs_no_more_is_kept_than_after_one(forge):
    backend, kept = forge.ours("backend").WebuiBackend(), []
    for _ in range(3):
        with backend.model():
            pass
        gc.collect()
        found = (thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor) and not thing.is_meta)
        kept.append(sum(thing.numel() for thing in found))
    assert kept[0] == kept[1] == kept[2]


def test_the_task_that_loaded_the_model_does_not_keep_it(forge, monkeypatch):
    """As reForge's first one, whose result nobody takes."""
    first = SimpleNamespace(result=forge.sd_models.needed())
    other = SimpleNamespace(result="a picture")
    monkeypatch.setitem(sys.modules, "modules_forge.main_thread", SimpleNamespace(finished_list=[other, first]))
    with forge.ours("host").unloaded():
        assert (first.result, other.result) == (None, "a picture")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give memory back by themselves")
def test_what_a_job_has_freed_is_given_back_to_the_machine(forge):
    """A job's many middle-sized tensors, and between them what lives on."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    kept, before = [], resident()

    def job() -> None:
        with forge.ours("host").unloaded():
            freed = []
            for _ in range(2000):
                freed.append(torch.ones(25_000))
                kept.append(torch.ones(10))
            assert resident() - before > 150e6
            freed.clear()

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert resident() - before < 50e6


@pytest.mark.parametrize(("act", "stage"), [("nothing", "done"), ("interrupt", "cancelled"), ("error", "failed")])
def test_a_photo_is_learned_and_the_retrained_file_takes_effect(forge, tiny, small_photo, act, stage):
    backend = forge.ours("backend").WebuiBackend()
    studio, report = Studio(backend), backend.report

    def acting(at, step, steps, preview):
        report(at, step, steps, preview)
        if at == "finetune" and act == "interrupt":
            studio.interrupt(studio.jobs()[-1].id)
        if at == "finetune" and act == "error":
            raise ValueError("nobody foresaw this")

    backend.report = acting
    status = ended(studio, studio.submit(short_task(small_photo, "anna", start="gradient")))
    assert status.stage == stage
    assert is_back(forge, tiny.checkpoint)
    if stage == "done":
        model = forge.sd_models.needed()
        model.current_lora_hash = "[['anna.safetensors', 1.0, 1.0]]"
        first = forge.networks.available_networks["anna"]
        backend.saved(forge.lora_dir / "anna.safetensors")
        backend.forget_saved()
        assert model.current_lora_hash == "" and forge.networks.available_networks["anna"] is not first


def test_a_lora_that_is_exported_again_takes_effect_with_the_next_picture(forge, small_lidb):
    """Forge compares names and multipliers alone, and keeps the tensors by the file's name."""
    networks, read = forge.networks, []
    forge.ours("forge").register_forge_tag(networks, forge.ours("host").lora_network(), "lidb")
    studio, model = forge.ours("mount").studio(), forge.sd_models.needed()
    for change in (torch.clone, torch.neg):
        save(forge.lora_dir / "anna.safetensors", small_lidb.map(change), Info(name="anna"))
        lora = studio.export(forge.lora_dir, "anna", overwrite=True)
        model.current_lora_hash = "[['anna_lora.safetensors', 1.0, 1.0]]"
        forge.ours("entry").TagNotes().process(SimpleNamespace(all_prompts=[]))
        assert model.current_lora_hash == "" and "anna_lora" in networks.available_networks
        tensors = networks.load_lora_state_dict(str(lora))
        read.append(next(value for key, value in tensors.items() if ".lora_up." in key))
    assert not torch.equal(*read)


def test_after_the_first_job_the_time_of_the_next_is_told(forge, tiny, small_photo, tmp_path):
    studio = Studio(forge.ours("backend").WebuiBackend())
    options = PersonalizeOptions(size=64, steps=1, picture_steps=1, start="gradient")
    assert studio.forecast(options) is None
    task = short_task(small_photo, "anna", steps=2, start="gradient", overwrite=True)
    assert ended(studio, studio.submit(task)).stage == "done"
    told = studio.forecast(options)
    assert (told.checkpoint, told.size) == ("tiny", 64) and told.seconds > 0
    other = tmp_path / "other.safetensors"
    other.symlink_to(tiny.checkpoint)
    choose(forge.sd_models, other)
    assert studio.forecast(options) is None, "of another checkpoint nothing is known"


def test_the_users_own_vae_is_the_one_that_is_used(forge, tiny, tmp_path):
    vae = {
        key.removeprefix(VAE_PREFIX): value
        for key, value in load_file(tiny.checkpoint).items()
        if key.startswith(VAE_PREFIX)
    }
    save_file(
        {key: value * 0 if key == "decoder.conv_in.bias" else value for key, value in vae.items()},
        tmp_path / "vae.safetensors",
    )
    choose(forge.sd_models, tiny.checkpoint, tmp_path / "vae.safetensors")
    with forge.ours("backend").WebuiBackend().model() as host:
        assert not host.vae.decoder.conv_in.bias.any()
        assert host.vae.decoder.conv_in.weight.any()


def _gone(folder):
    return folder / "gone.safetensors"


def _pickled(folder):
    (folder / "model.ckpt").write_bytes(b"pickle")
    return folder / "model.ckpt"


def _holding(key):
    def made(folder):
        save_file({key: torch.zeros(1)}, folder / "model.safetensors")
        return folder / "model.safetensors"

    return made


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (_gone, "There is no checkpoint"),
        (_pickled, "is no .safetensors file: convert it first"),
        (_holding("double_blocks.0.img_attn.qkv.weight"), "its architecture is FLUX"),
        (_holding("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"), "its architecture is SD 3"),
        (_holding("a.quant_state.bitsandbytes__nf4"), "is quantized"),
        (_holding("conditioner.embedders.0.model.ln_final.weight"), "SDXL's refiner"),
    ],
)
def test_a_checkpoint_that_cannot_be_opened_is_told_before_anything_is_unloaded(forge, tmp_path, made, sentence):
    forge.sd_models.checkpoints_list.clear()
    choose(forge.sd_models, made(tmp_path))
    backend = forge.ours("backend").WebuiBackend()
    assert sentence in backend.unfit()
    with pytest.raises(UserError, match=sentence), backend.model():
        pass
    assert loaded(forge) and "unload" not in forge.sd_models.asked
    assert not forge.call_queue.queue_lock.locked()


def test_a_text_encoder_or_a_pickled_vae_of_the_users_own_is_told(forge, tiny, tmp_path):
    backend = forge.ours("backend").WebuiBackend()
    choose(forge.sd_models, tiny.checkpoint, _holding("text_model.final_layer_norm.weight")(tmp_path))
    assert "is no VAE: choose no text encoder" in backend.unfit()
    choose(forge.sd_models, tiny.checkpoint, tmp_path / "vae.pt")
    assert "choose another VAE" in backend.unfit()


@pytest.mark.parametrize("name", ["timm", "diffusers"])
def test_a_missing_package_is_told(forge, monkeypatch, name):
    backend = forge.ours("backend").WebuiBackend()
    assert backend.unfit() == ""
    there = forge.ours("host").find_spec
    monkeypatch.setattr(forge.ours("host"), "find_spec", lambda asked: None if asked == name else there(asked))
    assert f"The package {name} is missing: connect to the network and restart" in backend.unfit()


def test_where_the_model_is_trained_in_place_diffusers_is_not_asked_for(webui, monkeypatch):
    there = webui.ours("host").find_spec
    monkeypatch.setattr(webui.ours("host"), "find_spec", lambda asked: None if asked == "diffusers" else there(asked))
    assert webui.ours("backend").WebuiBackend().unfit() == ""


def test_an_unknown_fork_says_where_to_personalize_instead(webui, monkeypatch):
    monkeypatch.setattr(webui.sd_models, "forge_loader", object(), raising=False)
    assert "cannot be unloaded: personalize elsewhere" in webui.ours("backend").WebuiBackend().unfit()


def test_without_any_checkpoint_the_user_is_told(forge):
    forge.sd_models.checkpoints_list.clear()
    vars(forge.sd_models.model_data).get("forge_loading_parameters", {}).clear()
    backend = forge.ours("backend").WebuiBackend()
    assert "The small built-in model does not run here" in backend.unfit()
    with pytest.raises(UserError, match="There is no checkpoint"), backend.model():
        pass


def test_the_bundled_checkpoint_which_forge_cannot_load_is_not_offered(forge):
    forge.ours("settings").add_settings()
    assert "hyperdreambooth_folder" in forge.shared.opts.data
    assert "hyperdreambooth_bundled" not in forge.shared.opts.data


def test_callbacks_are_registered_where_only_the_old_way_is_there(webui, monkeypatch):
    """Forge Classic's add_callback takes no names."""
    monkeypatch.setattr(webui.script_callbacks, "add_callback", lambda callbacks, fun: None)
    monkeypatch.setattr(webui.script_callbacks, "ScriptCallback", lambda *pair: pair, raising=False)
    webui.ours("entry").register()
    registered = webui.script_callbacks.callback_map
    assert [len(registered[f"callbacks_{kind}"]) for kind in webui.script_callbacks.KINDS] == [2, 1, 1, 1, 1]
    assert all(Path(file).name == "entry.py" and callable(f) for pairs in registered.values() for file, f in pairs)
