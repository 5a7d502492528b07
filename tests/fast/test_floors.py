"""Dependencies point one way: the lower floors import without the WebUI, gradio and diffusers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
for name in ("modules", "gradio", "diffusers", "peft", "accelerate", "webdataset", "ldm"):
    sys.modules[name] = None
import hyperdreambooth_ext.lidb.file, hyperdreambooth_ext.lidb.lora, hyperdreambooth_ext.lidb.injection
import hyperdreambooth_ext.hypernet.training, hyperdreambooth_ext.hypernet.file
import hyperdreambooth_ext.images.photo, hyperdreambooth_ext.images.face, hyperdreambooth_ext.images.sheet
import hyperdreambooth_ext.hosts.ldm, hyperdreambooth_ext.sampling.sampler
import hyperdreambooth_ext.personalize.personalize
import hyperdreambooth_ext.pretrain.build
"""
JOBS = """
import sys
for name in ("modules", "gradio", "fastapi", "pydantic", "uvicorn", "diffusers", "ldm"):
    sys.modules[name] = None
import hyperdreambooth_ext.jobs.jobs, hyperdreambooth_ext.jobs.library
"""
UI = """
import sys
for name in ("modules", "diffusers", "ldm"):
    sys.modules[name] = None
import hyperdreambooth_ext.ui.tab, hyperdreambooth_ext.api.routes
"""
# Each may import those before it; `ui` and `api` know nothing of each other, nor do `cli` and `webui`.
FLOORS = [
    "lidb", "images", "hosts", "sampling", "hypernet", "personalize", "pretrain", "jobs", "ui", "api", "cli", "webui",
]  # fmt: skip
SIDE_BY_SIDE = [("ui", "api"), ("cli", "webui")]


def test_the_lower_floors_know_no_webui_no_gradio_and_no_diffusers():
    subprocess.run([sys.executable, "-c", CODE], check=True, cwd=ROOT)


def test_the_ground_floor_needs_torch_and_safetensors_alone():
    blocked = '("timm", "open_clip", "einops", "cv2", "transformers", "PIL", "diffusers", "gradio", "modules")'
    code = f"import sys\nfor name in {blocked}:\n    sys.modules[name] = None\n"
    code += "import hyperdreambooth_ext.lidb.file, hyperdreambooth_ext.lidb.lora, hyperdreambooth_ext.lidb.injection"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_jobs_know_neither_tab_nor_web_server():
    subprocess.run([sys.executable, "-c", JOBS], check=True, cwd=ROOT)


def test_the_tab_and_the_api_need_no_webui_and_no_diffusers():
    subprocess.run([sys.executable, "-c", UI], check=True, cwd=ROOT)


def test_no_floor_imports_one_above_it():
    # The adapters of the hosts know their libraries; the floors above know the Protocol and the schedule.
    forbidden = {floor: set(FLOORS[i + 1 :]) for i, floor in enumerate(FLOORS)}
    for one, other in SIDE_BY_SIDE:
        forbidden[other].add(one)
    for floor, above in forbidden.items():
        for file in (ROOT / "hyperdreambooth_ext" / floor).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for name in above:
                assert f"from ..{name}" not in text, f"{file.name} imports {name}"
