"""Dependencies point one way: the lower floors import without the WebUI, gradio and diffusers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
for name in ("modules", "gradio", "diffusers", "peft", "accelerate", "ldm"):
    sys.modules[name] = None
import hyperdreambooth_ext.lidb.file, hyperdreambooth_ext.lidb.lora, hyperdreambooth_ext.lidb.injection
import hyperdreambooth_ext.hypernet.training, hyperdreambooth_ext.hypernet.file
import hyperdreambooth_ext.personalize.personalize, hyperdreambooth_ext.hosts.ldm
"""


def test_the_lower_floors_know_no_webui_no_gradio_and_no_diffusers():
    subprocess.run([sys.executable, "-c", CODE], check=True, cwd=ROOT)


def test_the_ground_floor_needs_torch_and_safetensors_alone():
    blocked = '("timm", "open_clip", "einops", "cv2", "transformers", "PIL", "diffusers", "gradio", "modules")'
    code = f"import sys\nfor name in {blocked}:\n    sys.modules[name] = None\n"
    code += "import hyperdreambooth_ext.lidb.file, hyperdreambooth_ext.lidb.lora, hyperdreambooth_ext.lidb.injection"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_floor_imports_one_above_it():
    floors = ["lidb", "hosts", "hypernet", "personalize", "standalone"]
    # The adapters of the hosts know their libraries; the floors above know the Protocol and the schedule.
    for i, floor in enumerate(floors):
        for file in (ROOT / "hyperdreambooth_ext" / floor).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            for above in floors[i + 1 :]:
                assert f"from ..{above}" not in text, f"{file.name} imports {above}"
