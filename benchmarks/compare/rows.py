"""Who takes part in the comparison."""

from dataclasses import replace

from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.service.task import PRESETS

from .aesthetic import AestheticGradients
from .dreambooth import DreamBooth
from .hyperdreambooth import HyperDreamBooth
from .hypernetwork import WebuiHypernetwork
from .lora import Lora
from .method import Method
from .textual_inversion import TextualInversion

OURS = "HyperDreamBooth"
STYLES_ALONE = FinetuneOptions(steps=80, style_weight=0.1, unprompted=0.0, identity_weight=0.0)
FORTY = replace(STYLES_ALONE, steps=40, batch=16, styled=2)
ROWS: dict[str, Method] = {
    OURS: HyperDreamBooth(),
    "DreamBooth": DreamBooth(),
    "DreamBooth without prior": DreamBooth(prior=False),
    "Textual Inversion": TextualInversion(),
    "LoRA, rank 4": Lora(4),
    "LoRA, rank 16": Lora(16),
    "WebUI hypernetwork": WebuiHypernetwork(),
    "Aesthetic gradients": AestheticGradients(),
    "quality Fast": HyperDreamBooth(options=PRESETS["fast"]),
    "quality Best": HyperDreamBooth(options=PRESETS["best"]),
    "only hypernetwork": HyperDreamBooth(predict_only=True),
    "80 iterations, styles alone kept": HyperDreamBooth(options=STYLES_ALONE),
    # The ablations of the paper's table, with its 40 iterations.
    "40 iterations of 16": HyperDreamBooth(options=FORTY),
    "no hypernetwork": HyperDreamBooth(start="zero", options=FORTY),
    "no hypernetwork, gradient start": HyperDreamBooth(start="gradient", options=FORTY),
    "k = 1": HyperDreamBooth(rounds=1, options=FORTY),
    "no rank relaxation": HyperDreamBooth(options=replace(FORTY, rank=1)),
    # What this extension adds to the paper's method, and what fewer looks at the photo would do.
    "no style prior": HyperDreamBooth(options=replace(FORTY, styled=0)),
    "half the batch": HyperDreamBooth(options=replace(FORTY, batch=8)),
    "half the iterations": HyperDreamBooth(options=replace(FORTY, steps=20)),
    "DreamBooth, 400 iterations": DreamBooth(steps=400),
    "DreamBooth, 40 iterations": DreamBooth(steps=40),
}


def folder_name(row: str) -> str:
    """A row's name as a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in row)
