"""Tells photos from what the decoder makes of their latents, patch by patch (PatchGAN, arXiv 1611.07004)."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from hyperdreambooth_ext.pretrain.processes import Processes


class Discriminator(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] -> one number for each patch [B, 1, h, w], larger for photos."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for narrow, wide in zip(widths[:-1], widths[1:], strict=True):
            layers += [spectral_norm(nn.Conv2d(narrow, wide, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.body(pictures)


class Adversary:
    """A discriminator that learns beside the autoencoder, from the pictures of the same steps (`Loop`'s `beside`)."""

    def __init__(self, device: torch.device, processes: Processes = Processes(), lr: float = 2e-4) -> None:
        self.processes = processes
        self.network = Discriminator().to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, betas=(0.5, 0.9))
        self.photos: torch.Tensor | None = None
        self.made: torch.Tensor | None = None

    def loss(self, made: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
        """How far the decoder is from being believed; remembers both for the discriminator's own step."""
        self.photos, self.made = photos.detach(), made.detach()
        self.network.requires_grad_(False)
        believed = self.network(made)
        self.network.requires_grad_(True)
        return -believed.mean()

    def after_update(self, _step: int) -> dict[str, float]:
        """One step by the hinge loss."""
        if self.photos is None or self.made is None:
            return {}
        loss = F.relu(1 - self.network(self.photos)).mean() + F.relu(1 + self.network(self.made)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.mean([parameter.grad for parameter in self.network.parameters() if parameter.grad is not None])
        self.optimizer.step()
        return {"discriminator": float(loss.detach())}

    def state_dict(self) -> dict:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
