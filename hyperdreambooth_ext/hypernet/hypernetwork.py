"""The hypernetwork: a face goes in, a LiDB comes out (HyperDreamBooth, section 4.2).

f = encoder(face)                       once
θ_0 = 0
θ_k = heads(decoder([f ; θ_{k-1}]))     k = 1 … s
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ..lidb.weights import LiDB
from .config import HypernetworkConfig
from .encoder import FaceEncoder
from .latent_identity import LatentIdentityEnsemble


class WeightDecoder(nn.Module):
    """The transformer decoder over [face features ; one token per layer], refining θ in `iterations` rounds."""

    def __init__(self, config: HypernetworkConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        sizes = [config.basis.sizes_of(layer) for layer in config.architecture.layers]
        self.sizes, largest = sizes, max(a + b for a, b in sizes)
        layers, width = len(sizes), config.width
        # Features share much that says nothing about the identity: `whiten` takes that off.
        self.register_buffer("features_mean", torch.zeros(channels))
        self.register_buffer("features_std", torch.ones(channels))
        self.features_in = nn.Linear(channels, width)
        self.features_norm = nn.LayerNorm(width)
        # The head of the recognizer that trained the encoder: the identity in one vector. Fixed while we train.
        if config.identity_width:
            self.register_buffer("identity_weight", torch.zeros(config.identity_width, channels))
            self.register_buffer("identity_bias", torch.zeros(config.identity_width))
            if config.centered:
                self.register_buffer("identity_center", torch.zeros(config.identity_width))
        self.summary_in = nn.Linear(config.identity_width or channels, width)
        self.weights_in = nn.Linear(largest, width)
        self.positions = nn.Parameter(torch.randn(layers, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        # One linear head per layer, kept as one tensor. A starts at zero, so ΔW = 0 before training; B must not, or no
        # gradient would ever reach A. This way round, since a layer's output can move in `a` directions with the
        # identity; with A fixed all that an identity could say to a layer is how far to go along one.
        self.head_weight = nn.Parameter(torch.zeros(layers, width, largest))
        self.head_bias = nn.Parameter(torch.zeros(layers, largest))
        with torch.no_grad():
            for i, (a, b) in enumerate(sizes):
                self.head_bias[i, a : a + b] = torch.randn(b) / b**0.5

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Face features [B, N, channels] -> θ [B, layers, a + b], padded with zeros to the largest layer."""
        white = (features - self.features_mean) / self.features_std
        face = self.features_norm(self.features_in(white))
        # Every layer's token knows the whole face from the start, so the first gradients tell identities apart.
        identity = self.identity(features) if self.config.identity_width else white.mean(1)
        summary = self.summary_in(identity)[:, None]
        theta = features.new_zeros(len(features), *self.head_bias.shape)
        for _ in range(self.config.iterations):
            tokens = self.weights_in(theta) + self.positions + summary
            hidden_states = self.blocks(torch.cat([face, tokens], dim=1))[:, face.shape[1] :]
            theta = torch.einsum("blw,lwo->blo", self.norm(hidden_states), self.head_weight) + self.head_bias
        return theta

    def identity(self, features: torch.Tensor) -> torch.Tensor:
        """Face features [B, N, channels] -> identity [B, identity_width], with entries of size about 1.

        The cosine of two tells whether they are of one person. Raises ValueError where the encoder knows none.
        """
        if not self.config.identity_width:
            raise ValueError("this hypernetwork's encoder was not trained by a recognizer")
        vector = F.normalize(F.linear(features.mean(1), self.identity_weight, self.identity_bias), dim=-1)
        if self.config.centered:
            vector = F.normalize(vector - self.identity_center, dim=-1)
        return vector * self.config.identity_width**0.5

    @torch.no_grad()
    def whiten(self, features: torch.Tensor) -> None:
        """Take mean and spread of the training faces' features [B, N, channels] for all that comes."""
        self.features_mean.copy_(features.mean((0, 1)))
        self.features_std.copy_(features.std((0, 1)) + 1e-3)

    def is_a(self) -> torch.Tensor:
        """1 where θ [layers, a + b] holds A_train, 0 where it holds B_train or padding."""
        mask = torch.zeros_like(self.head_bias)
        for i, (a, _) in enumerate(self.sizes):
            mask[i, :a] = 1
        return mask

    def as_lidb(self, theta: torch.Tensor) -> LiDB:
        """θ [B, layers, a + b] as a LiDB of rank 1 with one identity per sample; gradients flow."""
        a_train, b_train = {}, {}
        for i, (layer, (a, b)) in enumerate(zip(self.config.architecture.layers, self.sizes, strict=True)):
            a_train[layer.key] = theta[:, i, :a, None]
            b_train[layer.key] = theta[:, i, None, a : a + b]
        return LiDB(self.config.architecture, self.config.basis, a_train, b_train)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # Version 0.1 spelled it so.
        if f"{prefix}identity_centre" in state_dict:
            state_dict[f"{prefix}identity_center"] = state_dict.pop(f"{prefix}identity_centre")
        super()._load_from_state_dict(state_dict, prefix, *args)


class Hypernetwork(nn.Module):
    """Encoder and decoder together, and the latent identity nets that the finetune's identity loss uses, if any."""

    def __init__(self, config: HypernetworkConfig, pretrained_encoder: bool = False) -> None:
        super().__init__()
        self.config = config
        self.file_hash = ""
        """The first ten digits of the SHA-256 of the file that it was read from."""
        self.encoder = FaceEncoder(config, pretrained_encoder)
        self.decoder = WeightDecoder(config, self.encoder.channels)
        self.identity_net = LatentIdentityEnsemble.untrained(config.identity_nets) if config.identity_nets else None

    def carry(self, identity_net: LatentIdentityEnsemble) -> None:
        """Take the nets, which know the encoder's identities, into the file that this network is saved to."""
        self.identity_net = identity_net.cpu()
        self.config = replace(self.config, identity_nets=len(identity_net.nets))

    def forward(self, images: torch.Tensor) -> LiDB:
        """Aligned faces, float32 [B, 3, H, W] in [-1, 1] -> a LiDB of rank 1 with one identity per sample."""
        return self.decoder.as_lidb(self.decoder(self.encoder(images)))

    @torch.no_grad()
    def identities(self, images: torch.Tensor) -> torch.Tensor:
        """Aligned faces, float32 [B, 3, H, W] in [-1, 1] -> identities, unit vectors [B, identity_width].

        Raises ValueError where no recognizer trained the encoder.
        """
        return F.normalize(self.decoder.identity(self.encoder(images)), dim=-1)

    @torch.no_grad()
    def predict(self, image: torch.Tensor) -> LiDB:
        """One aligned face [1, 3, H, W] -> that person's LiDB of rank 1, float32 on the CPU."""
        return self(image).map(lambda tensor: tensor[0]).detached()
