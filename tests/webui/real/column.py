"""What is seen of a fork from outside, over its API. True wherever all is as it should be."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.webui.real.server import Server

Found = tuple[str, Any]
PROMPT = "a sks face"
SIZE = {"width": 64, "height": 64, "steps": 2}
SHORT = {"start": "gradient", "steps": 2, "lr": 0.3, "size": 64, "rank": 1, "pictures": 1, "picture_steps": 1}
# Arguments of the script X/Y/Z plot by their labels: without words around the grid, values as texts.
PLAIN = {"Draw legend": False, "Grid margins (px)": 0, "Use text inputs instead of dropdowns": True}


def column(server: Server) -> Iterator[Found]:
    """Each cell of one program's column."""
    photo, before = SAMPLE_PHOTO.read_bytes(), server.picture(PROMPT, **SIZE)
    learned = server.personalize(photo, "anna", **SHORT)
    yield "personalize, seconds", learned["seconds"]
    yield "LiDB, bytes", learned["bytes"]
    yield "given back after success", _same(before, server.picture(PROMPT, **SIZE))
    tag, infotext = server.generate(f"{PROMPT} <lidb:anna:1>", **SIZE)
    yield "tag", not _same(before, tag)
    yield "infotext", "anna: " in infotext
    lora = f"{PROMPT} <lora:{server.export('anna')}:1>"
    yield "tag and exported LoRA differ by", int(abs(tag - server.picture(lora, **SIZE)).max())
    card = server.call("/sd_extra_networks/get-single-card?page=lidb&tabname=txt2img&name=anna")["html"]
    yield "card", "lidb:anna:" in card
    yield "X/Y/Z", _same(*_plotted(server))
    # A hypernetwork is asked for, and there is none: told when the checkpoint was opened already.
    failed = server.ended(server.submit(photo, "nobody", **SHORT | {"start": "hypernetwork"}))
    yield "error", (failed["stage"], failed["message"])
    yield "given back after an error", _same(before, server.picture(PROMPT, **SIZE))
    yield "interrupt", _interrupted(server, photo)
    yield "given back after an interrupt", _same(before, server.picture(PROMPT, **SIZE))
    server.personalize(photo, "anna", **SHORT | {"lr": 1.0, "seed": 5})
    again = server.picture(f"{PROMPT} <lidb:anna:1>", **SIZE)
    yield "a retrained file takes effect", not _same(tag, again)
    server.export("anna")
    yield "an exported file takes effect again", _same(again, server.picture(lora, **SIZE))


def memory(server: Server, jobs: int = 10) -> Iterator[Found]:
    """The process's memory after each of some jobs, and after the picture that loads the program's model again."""
    photo = SAMPLE_PHOTO.read_bytes()
    server.picture(PROMPT, **SIZE)
    yield "MB after a picture", server.megabytes()
    for number in range(1, jobs + 1):
        server.personalize(photo, "again", **SHORT)
        yield f"MB after job {number}", server.megabytes()
        server.picture(PROMPT, **SIZE)
        yield f"MB after job {number} and a picture", server.megabytes()


def startup_seconds(server: Server) -> float:
    """Of our script and callbacks, as the program takes their times, and of building the tab."""
    records = server.call("/internal/profile-startup")["records"]
    own = [seconds for key, seconds in records.items() if "hyperdreambooth" in key or "entry.py" in key]
    return round(sum(own) + server.call("/probe/tab-seconds"), 3)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other)


def _interrupted(server: Server, photo: bytes) -> str:
    """The stage of a job that was interrupted in its finetune."""
    job = server.submit(photo, "nobody", **SHORT | {"steps": 500})
    while server.call(f"/hyperdreambooth/v1/jobs/{job}")["stage"] != "finetune":
        time.sleep(0.1)
    server.call(f"/hyperdreambooth/v1/jobs/{job}/interrupt", {"keep": False})
    return server.ended(job)["stage"]


def _plotted(server: Server) -> tuple[np.ndarray, np.ndarray]:
    """A grid of two multipliers of one LiDB, and the pictures that it shall be made of."""
    scripts = server.call("/sdapi/v1/script-info")
    arguments = next(one["args"] for one in scripts if one["name"] == "x/y/z plot" and not one["is_img2img"])
    axes = [choice if isinstance(choice, str) else choice[0] for choice in arguments[0]["choices"]]
    x, y = axes.index("[LiDB] multiplier"), axes.index("[LiDB] name")
    wanted = PLAIN | {"X type": x, "Y type": y, "Z type": 0, "X values": "0.2, 0.9", "Y values": "anna"}
    values, seen = [], set()
    for argument in arguments:
        label = argument["label"]
        # The second of one label is the dropdown, which is not asked for.
        values.append([] if label in seen else wanted.get(label, argument["value"]))
        seen |= {label} if label.endswith("values") else set()
    grid = server.picture(f"{PROMPT} <lidb:anna:1>", script_name="x/y/z plot", script_args=values, **SIZE)
    cells = [server.picture(f"{PROMPT} <lidb:anna:{multiplier}>", **SIZE) for multiplier in (0.2, 0.9)]
    return grid, np.hstack(cells)
