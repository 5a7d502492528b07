"""Who takes part in the comparison."""

from hyperdreambooth_ext.personalize.finetune import FinetuneOptions

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
    "only hypernetwork": HyperDreamBooth(steps=0),
    "k = 1": HyperDreamBooth(iterations=1),
    "no rank relaxation": HyperDreamBooth(rank=1),
    "no style prior": HyperDreamBooth(styled=0),
    "no likeness term": HyperDreamBooth(identity_weight=0.0),
    # Other ways to look at the photo: the first sees it twice as often, the others half as often.
    "40 iterations of 16": HyperDreamBooth(steps=40, batch=16, styled=2),
    "half the batch": HyperDreamBooth(batch=2),
    "half the iterations": HyperDreamBooth(steps=FinetuneOptions.steps // 2),
    "DreamBooth, 400 iterations": DreamBooth(steps=400),
    "DreamBooth, 40 iterations": DreamBooth(steps=40),
}


def folder_name(row: str) -> str:
    """A row's name as a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in row)
