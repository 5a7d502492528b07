"""The API of the real window under a flood: every request is answered, nearly all are refused, and no memory is kept.

One job runs and the queue is full; then come requests from many clients at once: whole ones with a photo, bodies of
the largest size, bodies without end, nonsense. Nothing but refusals may come back, and the server stays as large as it
was.
"""

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from hyperdreambooth_ext.api.route import MAX_BODY_BYTES
from hyperdreambooth_ext.api.routes import PREFIX
from hyperdreambooth_ext.jobs.jobs import MAX_WAITING
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO

ROOT = Path(__file__).parents[2]
CLIENTS = 40
MAX_GROWTH_MEGABYTES = 60


def ask(port: int, path: str, body: bytes | None = None, chunked: bool = False) -> tuple[int, dict]:
    """One request on a connection of its own: the answer's code and its JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        if body is None:
            connection.request("GET", PREFIX + path)
        elif chunked:
            pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
            headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
            connection.request("POST", PREFIX + path, pieces, headers, encode_chunked=True)
        else:
            connection.request("POST", PREFIX + path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def request(name: str, **values: object) -> bytes:
    photo = base64.b64encode(SAMPLE_PHOTO.read_bytes()).decode()
    return json.dumps({"photo": photo, "name": name, "size": 64, "picture_steps": 1, **values}).encode()


def flood(port: int, requests: int) -> Counter:
    """The codes of the answers to so many requests, from CLIENTS at once."""
    whole, large = request("more"), b'{"photo": "' + b"A" * (MAX_BODY_BYTES - 100) + b'"}'
    kinds = [(whole, False)] * 17 + [(b"[" * 9000, False), (b'{"photo": NaN, "name": 1e999}', False), (whole, True)]

    def one(number: int) -> int:
        if number % 100 == 0:
            return ask(port, "/personalize", large)[0]
        if number % 100 == 50:
            return ask(port, "/personalize", large * 2, chunked=True)[0]
        return ask(port, "/personalize", *kinds[number % len(kinds)])[0]

    with ThreadPoolExecutor(CLIENTS) as clients:
        return Counter(clients.map(one, range(requests)))


def served(folder: Path, requests: int) -> dict:
    """Start the window, fill its queue, flood it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hyperdreambooth_ext", "ui", "--port", str(port), "--out", str(folder)]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: ask(port, "/version")[0] == 200)
        first = ask(port, "/personalize", request("first", steps=2000, preview_every=0))[1]["id"]
        _wait(lambda: ask(port, f"/jobs/{first}")[1]["step"] > 2)
        for number in range(MAX_WAITING):
            assert ask(port, "/personalize", request(f"waiting{number}"))[0] == 202
        flood(port, 20)  # what the first requests load stays loaded
        process = psutil.Process(server.pid)
        before, started = process.memory_info().rss / 1e6, time.monotonic()
        codes = flood(port, requests)
        after = process.memory_info().rss / 1e6
        job = ask(port, f"/jobs/{first}")[1]
        assert job["stage"] == "finetune", "the running job was disturbed"
        return {
            "requests": requests, "codes": dict(codes), "megabytes_before": round(before, 1),
            "megabytes_after": round(after, 1), "grown_megabytes": round(after - before, 1),
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
    finally:
        server.kill()
        server.wait(20)


def _wait(ready) -> None:
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError("the window did not answer")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py robustness flood", description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        counts = served(Path(folder), args.requests)
    print(json.dumps(counts))
    refused = sum(count for code, count in counts["codes"].items() if code in (400, 413, 422, 429))
    return 0 if refused == args.requests and counts["grown_megabytes"] <= MAX_GROWTH_MEGABYTES else 1
