"""Who takes part in the comparison."""

from dataclasses import replace

from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.options import PRESETS

from .aesthetic import AestheticGradients
from .dreambooth import DreamBooth
from .hyperdreambooth import HyperDreamBooth
from .hypernetwork import WebuiHypernetwork
from .lora import Lora
from .method import Method
from .textual_inversion import TextualInversion

OURS = "HyperDreamBooth"
STYLE_PRIOR_ONLY = FinetuneOptions(steps=80, prior_weight=0.1, prior_unprompted=0.0, identity_weight=0.0)
FORTY = replace(STYLE_PRIOR_ONLY, steps=40, batch=16, prior_batch=2)
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
    "80 iterations, style prior only": HyperDreamBooth(options=STYLE_PRIOR_ONLY),
    "40 iterations of 16": HyperDreamBooth(options=FORTY),
    # The ablations of the paper's table, each of today's defaults less one thing.
    "no hypernetwork": HyperDreamBooth(start="zero"),
    "no hypernetwork, gradient start": HyperDreamBooth(start="gradient"),
    "k = 1": HyperDreamBooth(rounds=1),
    "no rank relaxation": HyperDreamBooth(options=FinetuneOptions(rank=1)),
    # Without what this extension adds to the paper's method, and with fewer looks at the photo.
    "no prior preservation": HyperDreamBooth(options=FinetuneOptions(prior_batch=0)),
    "half the batch": HyperDreamBooth(options=FinetuneOptions(batch=2)),
    "half the iterations": HyperDreamBooth(options=FinetuneOptions(steps=40)),
    "DreamBooth, 400 iterations": DreamBooth(steps=400),
    "DreamBooth, 40 iterations": DreamBooth(steps=40),
}


def folder_name(row: str) -> str:
    """A row's name as a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in row)
