"""The section "HyperDreamBooth" of the Settings tab, and the folders that follow from it."""

from pathlib import Path

import gradio as gr
from modules import paths, shared

from . import bundled
from .host import patches_models

SECTION = ("hyperdreambooth", "HyperDreamBooth")
CARDS = "hyperdreambooth_cards"
FOLDER = "hyperdreambooth_folder"


def add_settings() -> None:
    """The callback of on_ui_settings."""
    shared.opts.add_option(
        FOLDER,
        shared.OptionInfo("", "Save LiDBs in this subfolder of the LoRA folder", gr.Textbox, section=SECTION).info(
            "empty: in the LoRA folder itself"
        ),
    )
    shared.opts.add_option(
        CARDS,
        shared.OptionInfo(True, "Show the LiDB cards beside the Lora cards", section=SECTION).needs_reload_ui(),
    )
    if patches_models():
        # Forge and its kin take checkpoints of the known sizes only.
        return
    shared.opts.add_option(
        bundled.SETTING,
        shared.OptionInfo(
            False, f"Offer the small checkpoint {bundled.NAME} that comes with HyperDreamBooth, to try it",
            onchange=bundled.offer_as_set, section=SECTION,
        ).info("then reload the list of checkpoints; it was made for small pictures of faces"),
    )  # fmt: skip


def lora_dir() -> Path:
    """The folder that the tags look in; the option belongs to the Lora extension, which may be gone."""
    return Path(getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path) / "Lora")


def lidb_dir() -> Path:
    """Where LiDBs are saved: within the LoRA folder, or the tag would not find them."""
    folder = lora_dir()
    wanted = folder / str(shared.opts.data.get(FOLDER, "")).strip()
    return wanted if folder.resolve() in [wanted.resolve(), *wanted.resolve().parents] else folder


def hypernetwork_dir() -> Path:
    """Where the user keeps hypernetworks of his own."""
    return Path(paths.models_path) / "hyperdreambooth"


def hypernetwork_dirs() -> list[Path]:
    """Where hypernetworks are looked for: those that came with the extension or were built, and the user's own."""
    return [bundled.MODELS, hypernetwork_dir()]


def cards_wanted() -> bool:
    """Whether the cards are shown; asked before the settings are there."""
    return bool(shared.opts.data.get(CARDS, True))
