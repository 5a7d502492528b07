"""A real WebUI as a process of its own, with a data folder of its own: WEBUI_ROOT itself is only read."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hyperdreambooth_ext.shipped import CHECKPOINT
from tests.bundled import SIZE

REPOSITORY = Path(__file__).parents[3]
CREDENTIALS = "artist:secret"
START_SECONDS = 240


def python_of(root: Path) -> str:
    """WEBUI_PYTHON, or the environment that webui.sh makes."""
    return os.environ.get("WEBUI_PYTHON") or str(root / "venv" / "bin" / "python")


def prepare(data: Path) -> None:
    """A data folder with the extension as it would be installed, the probe, and the embedded checkpoint."""
    unwanted = shutil.ignore_patterns(".*", "tests", "training", "benchmarks", "docs", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, data / "extensions" / "hyperdreambooth", ignore=unwanted)
    probe = data / "extensions" / "hdb-probe" / "scripts"
    probe.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("probe.py"), probe)
    add_checkpoint(data, CHECKPOINT)


def add_checkpoint(data: Path, checkpoint: Path, name: str = "") -> Path:
    """Copy a checkpoint and its .yaml into the data folder; its text encoder's folder is named by its full path."""
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name or checkpoint.stem}.safetensors"
    shutil.copy(checkpoint, target)
    config = checkpoint.with_suffix(".yaml").read_text(encoding="utf-8")
    clip = REPOSITORY / "models" / "clip"
    target.with_suffix(".yaml").write_text(config.replace("version: clip", f"version: {clip}"), encoding="utf-8")
    return target


class Server:
    """Started by `with Server(...)`, ended by leaving."""

    def __init__(self, root: Path, data: Path, *arguments: str) -> None:
        self.root, self.data, self.arguments = root, data, arguments
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data / f"webui-{self.port}.log"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        command = [
            python_of(self.root), "launch.py", "--data-dir", str(self.data), "--server-name", "127.0.0.1", "--port",
            str(self.port), "--api", "--api-auth", CREDENTIALS, "--use-cpu", "all", "--no-half",
            "--skip-torch-cuda-test", "--no-download-sd-model", *self.arguments,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.data / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
        # No telemetry, no browser window.
        environment |= {"GRADIO_ANALYTICS_ENABLED": "False", "SD_WEBUI_RESTARTING": "1"}
        self._process = subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=open(self.log, "a"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, starts: int = 1) -> None:
        """Until it has started `starts` times; its own words are in the error when it does not.

        Asking over HTTP is no way to find out: a request that comes too early makes WebUI 1.10 fail at adding its API.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            # Without a page it says so a moment before it listens.
            if self.starts() >= starts and self._listens():
                return
            time.sleep(0.3)
        raise RuntimeError(f"The WebUI did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def _listens(self) -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", self.port)) == 0

    def megabytes(self) -> int:
        """What the process holds of the memory now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1000

    def starts(self) -> int:
        """How often it has started or reloaded."""
        return self.log.read_text(errors="replace").count("Startup time")

    def call(self, path: str, body: dict | None = None, credentials: str = CREDENTIALS, post: bool = False) -> Any:
        """JSON to and from a route. Raises urllib.error.HTTPError."""
        data = None if body is None and not post else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        if credentials:
            request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
        with urllib.request.urlopen(request, timeout=280) as response:
            return json.load(response)

    def picture(self, prompt: str, **options: Any) -> np.ndarray:
        """One picture of the embedded checkpoint's size, RGB [H, W, 3]."""
        return self.generate(prompt, **options)[0]

    def generate(self, prompt: str, **options: Any) -> tuple[np.ndarray, str]:
        """A picture and its infotext."""
        body = {
            "prompt": prompt, "seed": 3, "steps": 8, "width": SIZE, "height": SIZE, "cfg_scale": 4,
            "sampler_name": "Euler", **options,
        }  # fmt: skip
        answer = self.call("/sdapi/v1/txt2img", body)
        picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")
        return np.asarray(picture).astype(int), json.loads(answer["info"])["infotexts"][0]

    def submit(self, photo: bytes, name: str, **options: Any) -> str:
        """Start a personalization; the job's id."""
        body = {"photo": base64.b64encode(photo).decode(), "name": name, **options}
        return self.call("/hyperdreambooth/v1/personalize", body)["id"]

    def ended(self, job: str) -> dict:
        """The job's status when it has ended."""
        while True:
            status = self.call(f"/hyperdreambooth/v1/jobs/{job}")
            if status["stage"] in ("done", "failed", "cancelled"):
                return status
            time.sleep(0.2)

    def personalize(self, photo: bytes, name: str, **options: Any) -> dict:
        """Learn a photo; the result. Raises AssertionError when the job does not end well."""
        status = self.ended(self.submit(photo, name, overwrite=True, **options))
        assert status["stage"] == "done", status["message"]
        return status["result"]

    def export(self, name: str) -> str:
        """Export as a LoRA; the name of its tag."""
        file = self.call("/hyperdreambooth/v1/export", {"name": name, "overwrite": True})["file"]
        self.call("/sdapi/v1/refresh-loras", post=True)
        return Path(file).stem


def refused(call) -> int:
    """The status code of a call that must be refused."""
    try:
        call()
    except urllib.error.HTTPError as error:
        return error.code
    return 200
