"""What `scripts/hyperdreambooth.py` hands over to: the callbacks, each registered anew at every "Reload UI"."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from modules import script_callbacks, scripts
from torch import nn

from ..hosts.ldm import LdmHost
from . import cards, infotext, mount, settings, xyz
from .forge import register_forge_tag
from .host import any_networks, find_forge_networks, find_networks, lora_network, why_missing
from .notes import tag_notes, without_unreadable
from .tag import TAG, register_tag


class TagNotes(scripts.Script):
    """Runs with every generation and says under the image what a tag could not do."""

    def title(self) -> str:
        return "HyperDreamBooth"

    def show(self, is_img2img: bool) -> Any:  # noqa: ARG002
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any) -> None:  # noqa: ARG002
        """modules/processing.py, process_images_inner: before the first batch of a picture."""
        backend = mount.backend()
        backend.forget_saved()
        backend.pictures.begin()
        # Those of hires fix are there where it is on.
        for prompts in (p.all_prompts, getattr(p, "all_hr_prompts", None) or []):
            for i, prompt in enumerate(prompts):
                prompts[i], notes = without_unreadable(prompt)
                for note in notes:
                    p.comment(note)

    def after_extra_networks_activate(self, p: Any, *args: Any, extra_network_data: dict, **kwargs: Any) -> None:  # noqa: ARG002
        """modules/extra_networks.py, activate: for each batch, and again for hires fix."""

        def linears() -> Mapping[str, nn.Linear]:
            return LdmHost(p.sd_model).linears()

        for note in tag_notes(any_networks(), why_missing(), extra_network_data, linears):
            p.comment(note)


def register() -> None:
    """Hand our callbacks to the WebUI."""
    _on("before_ui", cards.register_page)
    _on("before_ui", xyz.add_axes)
    _on("ui_settings", settings.add_settings)
    _on("ui_tabs", mount.tabs)
    _on("infotext_pasted", infotext.pasted)
    _on("app_started", _on_app_started)


def _on(when: str, callback: Callable) -> None:
    """As `script_callbacks.on_…(callback)`, which reads the whole call stack each time to find this file's name.

    For six callbacks that is more than all our imports take.
    """
    callbacks = script_callbacks.callback_map[f"callbacks_{when}"]
    if "category" in signature(script_callbacks.add_callback).parameters:
        script_callbacks.add_callback(callbacks, callback, category=when, filename=__file__)
    else:
        # Forge Classic: a pair of the file's name and the function.
        callbacks.append(script_callbacks.ScriptCallback(__file__, callback))


def _on_app_started(demo: Any, app: Any) -> None:  # noqa: ARG001
    # Not earlier: on_before_ui runs in reverse order, so Lora would not have registered itself yet.
    networks, forge_networks = find_networks(), find_forge_networks()
    if networks is not None:
        register_tag(networks)
    elif forge_networks is not None:
        register_forge_tag(forge_networks, lora_network(), TAG)
    else:
        print(f"HyperDreamBooth: {why_missing()}")
    mount.api(app)
