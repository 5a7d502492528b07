"""The build as a job of the tab: it steps back for others, pauses, goes on, and its file is used from then on."""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import file_sha256
from hyperdreambooth_ext.hypernet.file import find_hypernetwork
from hyperdreambooth_ext.jobs.building import Builder, BuildStatus
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.pretrain.progress import Budget
from hyperdreambooth_ext.pretrain.store import Folder
from hyperdreambooth_ext.shipped import HYPERNETWORK
from hyperdreambooth_ext.ui.building import BuildPanel, buttons, status_page
from tests.pretrain.conftest import SMALL
from tests.studio import WatchedBackend


class BackendWithFolders(WatchedBackend):
    """The real backend; hypernetworks go into the test's folder."""

    def hypernetwork_dirs(self):
        return [self.folder / "models"]


@pytest.fixture
def builder(loaded_backend, tmp_path):
    backend = BackendWithFolders(tmp_path, loaded_backend.tiny)
    backend._host = loaded_backend._host
    (tmp_path / "models").mkdir()
    return Builder(backend)


def wait_until(builder: Builder, condition, seconds: float = 240) -> BuildStatus:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if condition(builder.status()):
            return builder.status()
        time.sleep(0.02)
    raise AssertionError(f"still {builder.status()}")


@pytest.mark.slow
def test_a_build_lets_others_go_first_pauses_and_goes_on(builder):
    builder.start(SMALL | {"steps": 8})
    asked = wait_until(builder, lambda status: status.stage == "train")
    with builder.backend.model() as host:
        # Nothing of it is left in the model, and nobody works on it.
        assert not any("forward" in vars(linear) for linear in host.linears().values())
        assert all(parameter.requires_grad for parameter in host.unet.parameters())
        before = wait_until(builder, lambda status: status.state == "waiting")
        time.sleep(0.3)
        assert builder.status().done == before.done <= asked.done + 1, "within one step"
    wait_until(builder, lambda status: status.state == "running")
    builder.pause()
    status = wait_until(builder, lambda status: not status.working)
    assert status.state == "paused" and "Resume" in status.message
    builder.resume()
    # The page goes on showing what it showed.
    assert builder.status().sheet == status.sheet != b""
    builder.pause()
    wait_until(builder, lambda status: not status.working)
    with pytest.raises(UserError, match=r"was begun with batch"):
        builder.start({"batch": 2})
        wait_until(builder, lambda status: not status.working)
        raise UserError(builder.status().message)
    builder.resume()
    status = wait_until(builder, lambda status: not status.working)
    assert status.state == "done" and status.file.parent == builder.backend.folder / "models" and status.sheet
    # Used from the next personalization on, without a restart.
    with builder.backend.model() as host:
        network = builder.backend.hypernetwork(host)
    assert network.file_hash == file_sha256(status.file)[:10] and network.config.trained_on.startswith("12 photos")


def test_the_panel_says_what_is_wrong_and_what_is_there(builder):
    (builder.backend.folder / "models" / "broken-hypernetwork.safetensors").write_bytes(b"half")
    panel_of = BuildPanel.__new__(BuildPanel)
    panel_of.builder = builder
    assert "broken-hypernetwork.safetensors is damaged" in panel_of.refresh()
    shown = list(panel_of.begin(2, 0, "", 4, 0, None))
    assert any("Faces: at least 8" in str(update[0]) for update in shown)
    list(panel_of.go_on())
    assert "press Start" in builder.status().message and builder.status().state == "failed"


def panel(builder) -> BuildPanel:
    bare = BuildPanel.__new__(BuildPanel)
    bare.builder = builder
    return bare


def test_a_folder_of_photos_is_read_for_nobody_but_who_sits_at_this_machine(builder):
    elsewhere = SimpleNamespace(client=SimpleNamespace(host="192.168.1.5"), headers={})
    (update,) = panel(builder).begin(12, 0, "/home", 4, 0, elsewhere)
    assert "only on the machine itself" in update[0] and builder.status().state == "idle"


def test_buttons_can_be_pressed_when_they_do_something():
    def pressed(**values):
        return [update.get("interactive", update.get("visible")) for update in buttons(BuildStatus(**values))]

    assert pressed() == [True, False, False, False]
    assert pressed(state="running") == [False, True, False, False]
    assert pressed(state="pausing") == [False, False, False, False]
    assert pressed(state="paused") == [True, False, True, False]
    assert pressed(state="done", offered=True) == [True, False, False, True]


def test_a_build_that_was_begun_is_shown_as_paused_after_a_restart(builder):
    folder = builder.backend.builds_dir() / "tiny-0123456789"
    folder.mkdir(parents=True)
    (folder / "build.json").write_text("{}")
    status = Builder(builder.backend).status()
    assert status.state == "paused" and "tiny-0123456789" in status.message and "Resume" in status.message
    shutil.copy(HYPERNETWORK, builder.backend.folder / "models" / "tiny-0123456789-hypernetwork.safetensors")
    os.utime(folder / "build.json", (1, 1))
    assert Builder(builder.backend).status().state == "idle", "its hypernetwork is in use"


def test_a_new_hypernetwork_replaces_one_for_the_same_checkpoint_only_on_demand(builder, tiny, monkeypatch):
    models = builder.backend.hypernetwork_dirs()[0]
    shutil.copy(tiny.hypernetwork_file, models / "old-hypernetwork.safetensors")

    def made(folder, wanted, host, destination, reporter):
        destination.mkdir(parents=True)
        (folder / "build.json").write_text("{}")
        return Path(shutil.copy(tiny.hypernetwork_file, destination / "new-hypernetwork.safetensors"))

    monkeypatch.setattr("hyperdreambooth_ext.jobs.building.build", made)
    builder.start({"faces": 20})
    status = wait_until(builder, lambda status: not status.working)
    assert status.offered and "old-hypernetwork.safetensors stays in use" in status.message
    with builder.backend.model() as host:
        used = lambda: find_hypernetwork(models, Architecture.of(host.linears()), host.checkpoint_hash).name  # noqa: E731
        assert used() == "old-hypernetwork.safetensors"
        assert "new-hypernetwork.safetensors" in panel(builder).refresh()
        again = Builder(builder.backend)
        assert again.status().offered, "also after a restart"
        again.use()
        assert used() == "new-hypernetwork.safetensors" and not again.status().offered
    with pytest.raises(UserError, match="No new hypernetwork waits"):
        again.use()


def test_the_time_budget_has_no_lowest_number_of_steps(tmp_path):
    budget = Budget(Folder(tmp_path), BuildOptions(hours=0.03, evaluate_every=250))
    assert budget.steps(lambda: 2.0) == int(0.03 * 3600 / 1.15 / 2)
    late = Budget(Folder(tmp_path / "late"), BuildOptions(hours=0.03))
    late.plan["spent"] = 3600.0
    assert late.steps(lambda: 2.0) == 1


def test_what_is_shown_is_escaped():
    page = status_page(BuildStatus("failed", message="<img src=x>", stage="train", done=1, total=2))
    assert "<img src=x>" not in page and "&lt;img" in page
