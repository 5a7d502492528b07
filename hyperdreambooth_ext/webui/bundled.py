"""The bundled checkpoint among the WebUI's own, for everybody who wants to try the extension before anything else."""

import filecmp
from pathlib import Path

from modules import sd_models, shared
from modules.call_queue import queue_lock

from ..errors import UserError
from ..files import write_atomically
from ..shipped import CHECKPOINT, MODELS

NAME = CHECKPOINT.stem
SETTING = "hyperdreambooth_bundled"


def offer_as_set() -> None:
    """The setting's onchange: put the checkpoint into the WebUI's folder, or take it out again."""
    offer(bool(shared.opts.data.get(SETTING, False)), Path(shared.cmd_opts.ckpt_dir or sd_models.model_path))


def load() -> None:
    """Offer the checkpoint and load it, as if it was chosen at the top left. Raises UserError when it cannot be."""
    shared.opts.set(SETTING, True, run_callbacks=False)
    offer_as_set()
    info = sd_models.get_closet_checkpoint_match(NAME)
    if info is None:
        raise UserError("The small built-in model is missing: install the extension again.")
    shared.opts.set("sd_model_checkpoint", info.title, run_callbacks=False)
    shared.opts.save(shared.config_filename)
    with queue_lock:
        sd_models.reload_model_weights(info=info)


def offer(wanted: bool, folder: Path) -> None:
    """Copy the checkpoint into `folder`, or delete that copy; another file of that name is left alone.

    A copy of an older version is brought up to date.
    """
    source, target = MODELS / f"{NAME}.safetensors", folder / f"{NAME}.safetensors"
    config = target.with_suffix(".yaml")
    ours = config.is_file() and config.read_text(encoding="utf-8") == _config()
    if wanted and (ours or not target.exists()):
        # First the configuration: a checkpoint that is found without it is taken for an SD 1.5 of full size.
        write_atomically(config, _config().encode())
        if not target.exists() or not filecmp.cmp(source, target, shallow=False):
            write_atomically(target, source.read_bytes())
    elif ours and not wanted:
        target.unlink(missing_ok=True)
        config.unlink()
    sd_models.list_models()


def _config() -> str:
    """Its configuration; the WebUI looks for the text encoder's folder from where it was started, so in full."""
    text = (MODELS / f"{NAME}.yaml").read_text(encoding="utf-8")
    return text.replace("version: clip", f"version: '{(MODELS / 'clip').as_posix()}'")
