"""The build as a job of the tab: it steps back for others, pauses, goes on, and its file is used from then on."""

import time

import pytest

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import file_sha256
from hyperdreambooth_ext.jobs.building import Builder, BuildStatus
from hyperdreambooth_ext.ui.building import BuildPanel, status_page
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
    shown = list(panel_of.begin(2, 0, "", 4, 0))
    assert any("Faces: choose from 8" in str(update[0]) for update in shown)
    list(panel_of.resume())
    assert "press Start" in builder.status().message and builder.status().state == "failed"


def test_what_is_shown_is_escaped():
    page = status_page(BuildStatus("failed", message="<img src=x>", stage="train", done=1, total=2))
    assert "<img src=x>" not in page and "&lt;img" in page
