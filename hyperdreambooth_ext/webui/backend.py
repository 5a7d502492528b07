"""The WebUI as a job sees it: its loaded model, its folders, its progress bar and its Interrupt."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from modules import devices, launch_utils, processing, sd_models, sd_unet, shared
from modules.call_queue import queue_lock
from PIL import Image
from torch import nn

from ..errors import UserError
from ..hosts.ldm import LdmHost
from ..hosts.protocol import Host
from ..hypernet.file import fitting_hypernetwork
from ..hypernet.hypernetwork import Hypernetwork
from . import bundled, forge, settings
from .builtin_lora import forget
from .host import chosen_checkpoint, find_forge_networks, find_networks, missing_package, patches_models
from .interrupt import WaitingPictures


class WebuiBackend:
    """`jobs.backend.Backend` for AUTOMATIC1111's WebUI 1.10, Forge and its kin."""

    def __init__(self) -> None:
        self.name = f"WebUI {launch_utils.git_tag()}"
        self.pictures = WaitingPictures()
        self._borrower: int | None = None
        self._saved: list[Path] = []
        self._reopened: tuple[Path, Host] | None = None

    @contextmanager
    def model(self) -> Iterator[Host]:
        with queue_lock:
            if unfit := self.unfit():
                raise UserError(unfit)
            shared.state.begin(job="hyperdreambooth")
            self._borrower = threading.get_ident()
            try:
                with forge.reopened() if patches_models() else _lent() as host:
                    self._remember(host)
                    yield host
            finally:
                self._borrower = None
                self.pictures.take_interrupt()
                shared.state.end()
                self.forget_saved()

    def unfit(self) -> str:
        if missing := missing_package():
            return missing
        return forge.unfit() if patches_models() else _unfit(sd_models.model_data.sd_model)

    def hypernetwork(self, host: Host, name: str = "") -> Hypernetwork | None:
        return fitting_hypernetwork(host, self.hypernetwork_dirs(), name)

    def hypernetwork_dirs(self) -> list[Path]:
        return settings.hypernetwork_dirs()

    def builds_dir(self) -> Path:
        return settings.hypernetwork_dir() / "builds"

    def wanted(self) -> bool:
        # modules/fifo_lock.py: those who called acquire() and were not let in yet, and whether somebody was.
        taken = queue_lock._lock.locked() and self._borrower != threading.get_ident()
        return taken or bool(queue_lock._pending_threads)

    def peek(self) -> Host | None:
        if patches_models():
            # Its weights are gone; its layers' names and shapes are not.
            file, host = self._reopened or (None, None)
            return host if file == _chosen_file() else None
        sd_model = sd_models.model_data.sd_model
        return None if sd_model is None or self.unfit() else _host(sd_model)

    def _remember(self, host: Host) -> None:
        if patches_models() and (file := _chosen_file()) is not None:
            self._reopened = file, host

    def can_try(self) -> bool:
        if patches_models():
            return False
        sd_model = sd_models.model_data.sd_model
        if sd_model is not None:
            return getattr(getattr(sd_model, "sd_checkpoint_info", None), "model_name", "") == bundled.NAME
        return {info.model_name for info in sd_models.checkpoints_list.values()} <= {bundled.NAME}

    def load_bundled(self) -> None:
        bundled.load()

    def lidb_dir(self) -> Path:
        return settings.lidb_dir()

    def saved(self, path: Path) -> None:
        # Not now: whoever has the model may have merged it. When a job gives it back, the LoRAs that were merged before
        # are merged again; what was written without the model is forgotten when the next picture begins.
        self._saved.append(path)

    @torch.no_grad()
    def forget_saved(self) -> None:
        """Called by whoever has the program's lock."""
        networks, forge_networks = find_networks(), find_forge_networks()
        while self._saved:
            path = self._saved.pop()
            if networks is not None:
                forget(networks, path, sd_models.model_data.loaded_sd_models)
            elif forge_networks is not None:
                forge.forget(forge_networks, path)
            _forget_conditions()

    def report(self, stage: str, step: int, steps: int, preview: object | None) -> None:
        if self._borrower is None:
            return
        self.pictures.take_interrupt()
        state = shared.state
        state.textinfo = f"HyperDreamBooth: {stage}"
        state.job_count, state.job_no = 1, 0
        state.sampling_step, state.sampling_steps = step, steps
        if isinstance(preview, Image.Image):
            state.assign_current_image(preview)


@contextmanager
def _lent() -> Iterator[Host]:
    """The model that the WebUI has loaded, as its file says."""
    # Not above: Forge has none of what it imports, and the start of the WebUI need not wait for it.
    from .lending import lent

    sd_model = shared.sd_model  # loads one where none is loaded yet
    unfit = _unfit(sd_model)
    if sd_model is None or unfit:
        raise UserError(unfit or "No checkpoint is loaded: choose one at the top left, then try again.")
    with lent(sd_model, find_networks()):
        yield _host(sd_model)


def _unfit(sd_model: nn.Module | None) -> str:
    if shared.cmd_opts.lowvram:
        return "The WebUI runs with lowvram, which leaves no model to train on: start it with medvram instead."
    if sd_model is None:
        return ""
    if getattr(sd_model, "is_sd3", False):
        return "SD 3 cannot be personalized yet: load an SD 1.x, SD 2.x or SDXL checkpoint."
    if sd_unet.current_unet is not None or (sd_unet.unet_options and sd_unet.get_unet_option() is not None):
        return (
            "A replacement UNet (TensorRT) is active, which ignores LiDBs: set "
            'Settings > Stable Diffusion > "SD Unet" to None.'
        )
    if devices.fp8:
        return "The model is stored as FP8, which cannot be trained on: set Settings > FP8 weight to Disable."
    try:
        _host(sd_model)
    except UserError as error:
        return str(error)
    return ""


def _chosen_file() -> Path | None:
    info = chosen_checkpoint()
    return None if info is None else Path(info.filename)


def _host(sd_model: nn.Module) -> LdmHost:
    info = getattr(sd_model, "sd_checkpoint_info", None)
    return LdmHost(
        sd_model,
        getattr(info, "model_name", ""),
        (getattr(info, "sha256", None) or "")[:10],
        torch.device(devices.device),
        devices.autocast,
    )


def _forget_conditions() -> None:
    """The text conditions are cached by the tag's words, not by the file that it names (processing.py)."""
    for kind, names in (
        (processing.StableDiffusionProcessing, ("cached_uc", "cached_c")),
        (processing.StableDiffusionProcessingTxt2Img, ("cached_hr_uc", "cached_hr_c")),
    ):
        for name in names:
            cached = getattr(kind, name)
            cached[:] = [None] * len(cached)
