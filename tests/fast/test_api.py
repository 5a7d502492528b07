"""The HTTP API: a whole job by requests, credentials on every route, limits, and sentences for what is wrong."""

import base64
import json
import secrets
import threading
import time
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.testclient import TestClient

from hyperdreambooth_ext import __version__
from hyperdreambooth_ext.api.route import MAX_BODY_BYTES, place_in
from hyperdreambooth_ext.api.routes import PREFIX, mount_api
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.studio import SHORT

PHOTO = base64.b64encode(SAMPLE_PHOTO.read_bytes()).decode()
ROUTES = {
    ("POST", "/personalize"), ("GET", "/jobs/{id}"), ("POST", "/jobs/{id}/interrupt"),
    ("POST", "/jobs/{id}/continue"), ("GET", "/lidbs"),
    ("POST", "/export"), ("GET", "/version"),
}  # fmt: skip


def served(studio, *dependencies) -> TestClient:
    app = FastAPI()
    mount_api(app, studio, dependencies)
    return TestClient(app)


@pytest.fixture
def client(studio):
    return served(studio)


def post(client, path, **values):
    return client.post(PREFIX + path, json=values)


def wait(client, id):
    for _ in range(600):
        job = client.get(f"{PREFIX}/jobs/{id}").json()
        if job["stage"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_a_whole_job_by_requests(client):
    answer = post(client, "/personalize", photo=PHOTO, name="anna", **SHORT)
    assert answer.status_code == 202
    job = wait(client, answer.json()["id"])
    assert job["stage"] == "done" and job["progress"] == 1
    result = job["result"]
    assert Path(result["file"]).stat().st_size == result["bytes"] and result["tag"] == "<lidb:anna:1>"
    assert base64.b64decode(result["after"]).startswith(b"\xff\xd8")
    assert result["pictures"][0]["after"] == result["after"] and len(result["pictures"]) == 2
    (listed,) = client.get(PREFIX + "/lidbs").json()
    assert listed["name"] == "anna" and base64.b64decode(listed["thumbnail"]).startswith(b"\xff\xd8")
    exported = post(client, "/export", name="anna").json()
    assert exported["file"].endswith("anna_lora.safetensors") and Path(exported["file"]).exists()
    assert post(client, "/export", name="anna").status_code == 400
    assert len(client.get(PREFIX + "/lidbs").json()) == 1


def test_interrupt_and_keep(client, studio):
    id = post(client, "/personalize", photo=PHOTO, name="anna", **{**SHORT, "steps": 500}).json()["id"]
    while not studio.job(id).step:
        time.sleep(0.01)
    post(client, f"/jobs/{id}/interrupt", keep=False)
    job = wait(client, id)
    assert job["stage"] == "cancelled" and job["can_keep"]
    assert job["can_continue"] and post(client, f"/jobs/{id}/continue").status_code == 200
    while studio.job(id).step <= job["step"]:
        time.sleep(0.01)
    post(client, f"/jobs/{id}/interrupt", keep=True)
    result = wait(client, id)["result"]
    assert result["steps"] < 500 and (result["size"], result["cfg"]) == (64, 2) and "identity_words" in result


def test_every_route_asks_for_credentials_first(studio):
    def credentials(given: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:
        if not secrets.compare_digest(given.password, "secret"):
            raise HTTPException(401, "wrong")

    client = served(studio, Depends(credentials))
    bodies = {"/personalize": {"photo": PHOTO, "name": "anna"}, "/export": {"name": "a"}}
    for method, path in ROUTES:
        body = bodies.get(path, {"keep": True}) if method == "POST" else None
        url = PREFIX + path.format(id="x")
        assert client.request(method, url, json=body).status_code == 401, path
        assert client.request(method, url, json=body, auth=("me", "no")).status_code == 401, path
    assert not studio.jobs()
    assert client.get(PREFIX + "/version", auth=("me", "secret")).status_code == 200


def test_the_schema_names_every_route(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path.removeprefix(PREFIX)) for path, of in paths.items() for method in of} == ROUTES
    assert all(of["summary"] for path in paths.values() for of in path.values())


def test_a_schema_that_was_asked_for_before_is_made_anew(studio):
    app = FastAPI()
    app.openapi()
    mount_api(app, studio)
    assert PREFIX + "/version" in app.openapi()["paths"]


def test_the_version_names_the_program(client):
    assert client.get(PREFIX + "/version").json() == {"version": __version__, "program": "standalone", "unfit": ""}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"photo": "no base64!"}, "no base64"),
        ({"photo": base64.b64encode(b"hello").decode()}, "no picture"),
        ({"name": "../../etc/passwd"}, "character that a tag"),
        ({"start": "zero", "hypernetwork": "mine.safetensors"}, "back to Automatic"),
    ],
)
def test_what_is_wrong_is_a_sentence(client, values, sentence):
    answer = post(client, "/personalize", **{"photo": PHOTO, "name": "anna", **values})
    assert answer.status_code == 400 and sentence in answer.json()["detail"]


@pytest.mark.parametrize("value", [{"steps": 0}, {"rank": 65}, {"size": 100}, {"seed": -1}, {"quality": "ultra"}])
def test_an_option_out_of_its_range_is_named_before_anything_starts(client, studio, value):
    answer = post(client, "/personalize", photo=PHOTO, name="anna", **value)
    assert answer.status_code == 422 and f": {next(iter(value))}: " in answer.json()["detail"] and not studio.jobs()


def test_a_data_url_is_a_photo_too(client, studio):
    answer = post(client, "/personalize", photo="data:image/jpeg;base64," + PHOTO, name="anna", **SHORT)
    assert wait(client, answer.json()["id"])["stage"] == "done"


def test_unknown_jobs_and_a_full_queue_have_codes_of_their_own(client, studio):
    assert client.get(PREFIX + "/jobs/nothing").status_code == 404
    with studio.backend.model():
        codes = [post(client, "/personalize", photo=PHOTO, name=f"a{i}", **SHORT).status_code for i in range(6)]
    assert codes == [202] * 5 + [429]
    for status in studio.jobs():
        studio.interrupt(status.id)


def test_a_body_without_end_is_cut_off(client):
    def endless():
        for _ in range(MAX_BODY_BYTES // 1_000_000 + 50):
            yield b" " * 1_000_000

    headers = {"content-type": "application/json"}
    answer = client.post(PREFIX + "/personalize", content=endless(), headers=headers)
    assert answer.status_code == 413 and "too large" in answer.json()["detail"]


def test_a_page_elsewhere_cannot_start_a_job(client, studio):
    """A form on another site can send text/plain without being asked; only JSON is understood."""
    body = json.dumps({"photo": PHOTO, "name": "anna"})
    answer = client.post(PREFIX + "/personalize", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 422 and not studio.jobs()


def test_a_full_queue_refuses_a_flood_before_it_reads_and_keeps_nothing(client, studio):
    import tracemalloc

    body = json.dumps({"photo": PHOTO, "name": "more", **SHORT}).encode()
    with studio.backend.model():
        for number in range(5):
            assert post(client, "/personalize", photo=PHOTO, name=f"a{number}", **SHORT).status_code == 202
        headers = {"content-type": "application/json"}
        client.post(PREFIX + "/personalize", content=body, headers=headers)
        tracemalloc.start()
        codes = {client.post(PREFIX + "/personalize", content=body, headers=headers).status_code for _ in range(40)}
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert codes == {429} and len(studio.jobs()) == 5 and kept < 2_000_000
        for status in studio.jobs():
            studio.interrupt(status.id)


def test_large_requests_go_through_a_narrow_gate():
    gate = threading.Semaphore(1)
    with place_in(gate):
        with pytest.raises(HTTPException, match="429|Too many"), place_in(gate):
            pass
    with place_in(gate):
        pass


def test_nobody_unknown_makes_the_server_keep_a_body(studio, monkeypatch):
    def nobody() -> None:
        raise HTTPException(401, "wrong")

    kept = []

    async def keep(request, limit):
        kept.append(limit)

    monkeypatch.setattr("hyperdreambooth_ext.api.route._read_body", keep)
    client = served(studio, Depends(nobody))
    answer = client.post(PREFIX + "/personalize", content=b" " * 3000, headers={"content-type": "application/json"})
    assert answer.status_code == 401 and not studio.jobs() and not kept


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 9000, b'{"photo": NaN}', b'{"photo": "", "name": "a", "steps": 1e999}', b"0",
        b'{"photo": "", "name": "a", "lr": 1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_words_that_do_not_repeat_it(client, body):
    answer = client.post(PREFIX + "/personalize", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and len(answer.content) < 500 and isinstance(answer.json()["detail"], str)


def test_a_small_request_is_small(client):
    answer = client.post(PREFIX + "/export", content=b" " * 20_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413
