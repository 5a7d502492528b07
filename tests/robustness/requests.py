"""The API's requests as a reader of what strangers send: real routes and a real queue that starts no job."""

import base64
import io
import json
import tempfile
from functools import cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from hyperdreambooth_ext.api.routes import PREFIX, mount_api
from hyperdreambooth_ext.cli.backend import StandaloneBackend
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import checked_name
from hyperdreambooth_ext.jobs.jobs import Job, Studio
from hyperdreambooth_ext.jobs.task import Task
from hyperdreambooth_ext.lidb.file import MAX_RANK
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO

REFUSALS = (400, 404, 413, 422)
# What each input is sent to: a body of one route is nonsense to the others.
ROUTES = ("/personalize", "/export", "/jobs/none/interrupt")


class _Counter(Studio):
    """A studio that takes a task and lets it rest."""

    task: Task | None = None

    def _enqueue(self, job: Job) -> None:
        self.task = job.task


@cache
def _served() -> tuple[_Counter, TestClient]:
    studio, app = _Counter(StandaloneBackend(Path(tempfile.mkdtemp(prefix="requests-")))), FastAPI()
    mount_api(app, studio)
    return studio, TestClient(app)


def whole_requests() -> list[bytes]:
    """A request of each route, the photo of few pixels."""
    buffer = io.BytesIO()
    Image.open(SAMPLE_PHOTO).resize((48, 64)).save(buffer, "JPEG")
    photo = base64.b64encode(buffer.getvalue()).decode()
    values = {
        "photo": photo, "name": "anna", "quality": "fast", "start": "zero", "steps": 1, "rank": 1, "lr": 0.01,
        "text": False, "face": 1, "seed": 0, "size": 64, "thumbnail": True, "overwrite": False, "preview_every": 0,
        "picture_steps": 1,
    }  # fmt: skip
    others = ({"photo": photo, "name": "bert"}, {"name": "anna", "overwrite": True}, {"keep": True})
    return [json.dumps(request).encode() for request in (values, *others)]


def asked(path: Path) -> Task | None:
    """Send what lies at `path` to every route; the task that one of them took.

    Raises UserError with the refusal's sentence when all refuse, AssertionError for any other answer.
    """
    studio, client = _served()
    content, sentence, studio.task = path.read_bytes(), "", None
    for route in ROUTES:
        answer = client.post(PREFIX + route, content=content, headers={"Content-Type": "application/json"})
        if answer.status_code == 202:
            continue
        assert answer.status_code in REFUSALS, f"{route}: {answer.status_code}"
        sentence = answer.json()["detail"]
        assert isinstance(sentence, str) and sentence and len(sentence) < 2000, f"{route}: {answer.text[:200]}"
    if studio.task is None:
        raise UserError(sentence)
    return studio.task


def check_task(task: Task) -> None:
    """What the queue is handed is within all bounds."""
    assert task.name == checked_name(task.name) and task.photo.pixels.shape[2] == 3
    options = task.finetune()
    assert 1 <= options.steps <= 2000 and 1 <= options.rank <= MAX_RANK
    assert options.lr is None or 0 < options.lr <= 1
    assert 0 <= task.seed < 2**32 and 1 <= task.face <= 100
    assert task.size is None or (64 <= task.size <= 2048 and task.size % 64 == 0)
    assert 1 <= task.picture_steps <= 200 and 0 <= task.preview_every <= 2000
    assert all(type(flag) is bool for flag in (task.text, task.thumbnail, task.overwrite))
