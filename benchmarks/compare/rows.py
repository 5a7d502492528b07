"""Who takes part in the comparison."""

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
ROWS: dict[str, Method] = {
    OURS: HyperDreamBooth(),
    "DreamBooth": DreamBooth(),
    "DreamBooth without prior": DreamBooth(prior=False),
    "Textual Inversion": TextualInversion(),
    "LoRA, rank 4": Lora(4),
    "LoRA, rank 16": Lora(16),
    "WebUI hypernetwork": WebuiHypernetwork(),
    "Aesthetic gradients": AestheticGradients(),
    # The ablations of the paper's table.
    "no hypernetwork": HyperDreamBooth(start="zero"),
    "no hypernetwork, gradient start": HyperDreamBooth(start="gradient"),
    "only hypernetwork": HyperDreamBooth(predict_only=True),
    "k = 1": HyperDreamBooth(rounds=1),
    "no rank relaxation": HyperDreamBooth(options=FinetuneOptions(rank=1)),
    # What this extension adds to the paper's method, left out.
    "no style prior": HyperDreamBooth(options=FinetuneOptions(styled=0)),
    "no likeness term": HyperDreamBooth(options=FinetuneOptions(identity_weight=0.0)),
    # More and fewer looks at the photo; the tab's other qualities.
    "40 iterations of 16": HyperDreamBooth(options=FinetuneOptions(steps=40, batch=16, styled=2)),
    "half the batch": HyperDreamBooth(options=FinetuneOptions(batch=2)),
    "quality Fast": HyperDreamBooth(options=PRESETS["fast"]),
    "quality Best": HyperDreamBooth(options=PRESETS["best"]),
    "DreamBooth, 400 iterations": DreamBooth(steps=400),
    "DreamBooth, 40 iterations": DreamBooth(steps=40),
}


def folder_name(row: str) -> str:
    """A row's name as a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in row)
