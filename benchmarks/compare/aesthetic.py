"""Aesthetic gradients (Gallego, arXiv 2209.12330): before each picture the text encoder takes a few steps that turn the
prompt's embedding towards that of images.

After https://github.com/vicgalle/stable-diffusion-aesthetic-gradients. The bundled checkpoint has no CLIP image tower
beside its text encoder, so one is stood in for: a ridge regression from the face encoder's identity vector to the
text encoder's pooled output, fitted on pictures that the checkpoint samples from captions (`image_head`).
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from .method import PROMPT, Descent, Learned, Task, Watch

RIDGE = 1.0


@dataclass(frozen=True)
class ImageLearned:
    """The image's embedding [width]; the steps are taken when a picture is asked for."""

    embedding: torch.Tensor
    lr: float
    steps: int

    @contextmanager
    def applied(self, host: DiffusersHost, multiplier: float) -> Iterator[None]:
        plain = host.encode_prompts

        def encode_prompts(prompts: Sequence[str]) -> torch.Tensor:
            if not any(prompts):  # guidance's other side stays what it is
                return plain(prompts)
            return plain(prompts).lerp(towards(host, prompts, self.embedding, self.lr, self.steps), multiplier)

        host.encode_prompts = encode_prompts  # type: ignore[method-assign]
        try:
            yield
        finally:
            del host.encode_prompts

    def save(self, folder: Path) -> Path:
        save_file({"embedding": self.embedding.clone()}, folder / "aesthetic.safetensors")
        return folder / "aesthetic.safetensors"


@dataclass(frozen=True)
class AestheticGradients:
    steps: int = 20
    sweep: tuple[float, ...] = (1e-4, 1e-3, 5e-3, 2e-2)

    def learn(self, task: Task, lr: float | None, steps: int, watch: Watch) -> Learned:
        """The steps of one picture are counted as learning: they are taken before each one."""
        if task.hypernetwork is None:
            raise ValueError("aesthetic gradients need the face encoder of a hypernetwork")
        image = task.subject().image
        with torch.no_grad():
            who = task.hypernetwork.decoder.identity(task.hypernetwork.encoder(image))[0]
        embedding = torch.cat([who, who.new_ones(1)]) @ task.image_head
        learned = ImageLearned(embedding, lr or self.sweep[0], steps)
        towards(task.host, [PROMPT], embedding, learned.lr, steps)
        watch(steps, lambda: learned)
        return learned


@torch.enable_grad()
def towards(
    host: DiffusersHost, prompts: Sequence[str], embedding: torch.Tensor, lr: float, steps: int
) -> torch.Tensor:
    """The prompts' condition [B, 77, width] after `steps` of the text encoder towards `embedding`; it is given back."""
    kept = {name: tensor.clone() for name, tensor in host.text_encoder.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in host.text_encoder.parameters()]
    try:
        host.text_encoder.requires_grad_(True)
        descent = Descent(list(host.text_encoder.parameters()), lr, weight_decay=0.0)
        for _ in range(steps):
            descent.step(-F.cosine_similarity(pooled(host, prompts), embedding[None]).mean())
        with torch.no_grad():
            return _encoded(host, prompts).last_hidden_state
    finally:
        host.text_encoder.load_state_dict(kept)
        for parameter, requires_grad in zip(host.text_encoder.parameters(), wanted, strict=True):
            parameter.requires_grad_(requires_grad)


def pooled(host: DiffusersHost, prompts: Sequence[str]) -> torch.Tensor:
    """The text encoder's output at the end of each prompt [B, width]."""
    return _encoded(host, prompts).pooler_output


def _encoded(host: DiffusersHost, prompts: Sequence[str]):
    settings = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    return host.text_encoder(host.tokenizer(list(prompts), **settings).input_ids)


def image_head(host: DiffusersHost, hypernetwork: Hypernetwork, pictures: int, sampling: Sampling) -> torch.Tensor:
    """[identity width + 1, text width]: from an identity vector and a 1 to the pooled output for a fitting caption."""
    captions = _captions(pictures)
    sampled: list[np.ndarray] = []
    for first in range(0, pictures, 8):
        part = captions[first : first + 8]
        sampled += sample_many(host, part, range(first, first + len(part)), sampling)
    images = torch.from_numpy(np.stack(sampled)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        who = hypernetwork.decoder.identity(hypernetwork.encoder(images))
        inputs = torch.cat([who, who.new_ones(len(who), 1)], dim=1)
        outputs = pooled(host, captions)
    gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
    return torch.linalg.solve(gram, inputs.T @ outputs)


def _captions(count: int) -> list[str]:
    ages, sexes = ("young", "middle-aged", "old"), ("man", "woman")
    hair = ("black hair", "brown hair", "blond hair", "gray hair", "red hair", "bald")
    moods = ("smiling", "serious", "wearing glasses")
    every = [f"a {a} {s}, {h}, {m}" for a, s, h, m in itertools.product(ages, sexes, hair, moods)]
    random.Random(0).shuffle(every)
    return list(itertools.islice(itertools.cycle(every), count))
