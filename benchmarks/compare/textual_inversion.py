"""Textual Inversion (Gal et al., arXiv 2208.01618): one word's embedding is learned.

After diffusers' `examples/textual_inversion/textual_inversion.py`: the word starts as "face", everything else is
frozen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.sampling.schedule import random_samples

from .method import TRIGGER, Descent, Learned, Task, Watch, denoising_loss

FIRST_WORD = "face"


@dataclass(frozen=True)
class WordLearned:
    vector: torch.Tensor

    @contextmanager
    def applied(self, host: DiffusersHost, multiplier: float) -> Iterator[None]:
        first = _embedding(host).weight[_token(host, FIRST_WORD)].detach()
        with _word(host, first.lerp(self.vector, multiplier)):
            yield

    def save(self, folder: Path) -> Path:
        save_file({"emb_params": self.vector[None].detach().clone()}, folder / "word.safetensors")
        return folder / "word.safetensors"


@dataclass(frozen=True)
class TextualInversion:
    steps: int = 1200
    sweep: tuple[float, ...] = (1e-3, 5e-3, 2e-2, 5e-2)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        host, generator = task.host, torch.Generator().manual_seed(task.seed)
        with host.frozen():
            subject = task.subject()
            vector = _embedding(host).weight[_token(host, FIRST_WORD)].detach().clone().requires_grad_()
            descent = Descent([vector], lr or self.sweep[0])
            for step in range(1, steps + 1):
                with _word(host, vector):
                    condition = host.encode_prompts([subject.prompt])
                descent.step(denoising_loss(host, *random_samples(host, subject.latents, 1, generator), condition))
                watch(step, lambda: WordLearned(vector.detach().clone()))
        return WordLearned(vector.detach())


@contextmanager
def _word(host: DiffusersHost, vector: torch.Tensor) -> Iterator[None]:
    """Within this context the trigger's embedding is `vector`."""
    token = _token(host, TRIGGER)

    def replaced(_module, inputs, output):
        return torch.where((inputs[0] == token)[..., None], vector.to(output), output)

    hook = _embedding(host).register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()


def _embedding(host: DiffusersHost) -> torch.nn.Embedding:
    return host.text_encoder.get_input_embeddings()


def _token(host: DiffusersHost, word: str) -> int:
    (token,) = host.tokenizer(word, add_special_tokens=False).input_ids
    return token
