"""The hypernetwork: a face goes in, a LiDB comes out (HyperDreamBooth, section 4.2).

f = encoder(face)                       once
θ_0 = 0
θ_k = heads(decoder([f ; θ_{k-1}]))     k = 1 … s
"""

import torch
from torch import nn

from ..lidb.weights import LiDB
from .config import HypernetworkConfig
from .encoder import FaceEncoder


class WeightDecoder(nn.Module):
    """The transformer decoder over [face features ; one token per layer], refining θ in `iterations` rounds."""

    def __init__(self, config: HypernetworkConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        sizes = [config.basis.sizes(layer.out_features, layer.in_features) for layer in config.architecture.layers]
        self.sizes, largest = sizes, max(a + b for a, b in sizes)
        layers, width = len(sizes), config.width
        # Features share much that says nothing about who it is: `whiten` takes that off.
        self.register_buffer("features_mean", torch.zeros(channels))
        self.register_buffer("features_std", torch.ones(channels))
        self.features_in = nn.Linear(channels, width)
        self.features_norm = nn.LayerNorm(width)
        self.summary_in = nn.Linear(width, width)
        self.weights_in = nn.Linear(largest, width)
        self.positions = nn.Parameter(torch.randn(layers, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        # One linear head per layer, kept as one tensor. B starts at zero, so ΔW = 0 before training; A must not, or
        # no gradient would ever reach B.
        self.head_weight = nn.Parameter(torch.zeros(layers, width, largest))
        self.head_bias = nn.Parameter(torch.zeros(layers, largest))
        with torch.no_grad():
            for i, (a, _) in enumerate(sizes):
                self.head_bias[i, :a] = torch.randn(a) / a**0.5

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Face features [B, N, channels] -> θ [B, layers, a + b], padded with zeros to the largest layer."""
        face = self.features_norm(self.features_in((features - self.features_mean) / self.features_std))
        # Every layer's token knows the whole face from the start, so the first gradients tell people apart.
        summary = self.summary_in(face.mean(1, keepdim=True))
        theta = features.new_zeros(len(features), *self.head_bias.shape)
        for _ in range(self.config.iterations):
            tokens = self.weights_in(theta) + self.positions + summary
            hidden_states = self.blocks(torch.cat([face, tokens], dim=1))[:, face.shape[1] :]
            theta = torch.einsum("blw,lwo->blo", self.norm(hidden_states), self.head_weight) + self.head_bias
        return theta

    @torch.no_grad()
    def whiten(self, features: torch.Tensor) -> None:
        """Take mean and spread of the training faces' features [B, N, channels] for all that comes."""
        self.features_mean.copy_(features.mean((0, 1)))
        self.features_std.copy_(features.std((0, 1)) + 1e-3)

    def as_lidb(self, theta: torch.Tensor) -> LiDB:
        """θ [B, layers, a + b] as a LiDB of rank 1 with one person per sample; gradients flow."""
        a_train, b_train = {}, {}
        for i, (layer, (a, b)) in enumerate(zip(self.config.architecture.layers, self.sizes, strict=True)):
            a_train[layer.key] = theta[:, i, :a, None]
            b_train[layer.key] = theta[:, i, None, a : a + b]
        return LiDB(self.config.architecture, self.config.basis, a_train, b_train)


class Hypernetwork(nn.Module):
    """Encoder and decoder together."""

    def __init__(self, config: HypernetworkConfig, pretrained_encoder: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = FaceEncoder(config, pretrained_encoder)
        self.decoder = WeightDecoder(config, self.encoder.channels)

    def forward(self, images: torch.Tensor) -> LiDB:
        """Aligned faces, float32 [B, 3, H, W] in [-1, 1] -> a LiDB of rank 1 with one person per sample."""
        return self.decoder.as_lidb(self.decoder(self.encoder(images)))

    @torch.no_grad()
    def predict(self, image: torch.Tensor) -> LiDB:
        """One aligned face [1, 3, H, W] -> that person's LiDB of rank 1, float32 on the CPU."""
        return self(image).map(lambda tensor: tensor[0]).detached()
