"""The new decoder before training, and one that was trained, as a hypernetwork."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .. import __version__
from ..errors import FileError
from ..hosts.protocol import Host
from ..hypernet.config import HypernetworkConfig
from ..hypernet.embedder import Eyes
from ..hypernet.hypernetwork import Hypernetwork, WeightDecoder
from ..hypernet.latent_recognizer import Readers
from ..lidb.basis import AnyBasis
from ..lidb.layers import Architecture
from ..lidb.stored_basis import A_PREFIX, B_PREFIX, StoredBasis
from .options import BuildOptions
from .prepare import Prepared

# So many faces are enough to know what all features have in common.
_WHITENED = 512


def configuration(
    options: BuildOptions,
    host: Host,
    eyes: Eyes,
    basis: AnyBasis,
    trained_on: str,
) -> HypernetworkConfig:
    """What the new hypernetwork's file says about itself."""
    return HypernetworkConfig(
        Architecture.of(host.linears()), basis, width=options.width, depth=options.depth, iterations=options.iterations,
        family=host.family, checkpoint=host.checkpoint_name, checkpoint_hash=host.checkpoint_hash,
        centred=eyes.own, through_autoencoder=options.draws, trained_on=trained_on,
        made_with=f"hyperdreambooth_ext {__version__}", **eyes.settings,  # type: ignore[arg-type]
    )  # fmt: skip


def in_words(score: dict[str, float] | None) -> str:
    """Held-out figures as a file tells them."""
    return "" if score is None else ", ".join(f"{name} {value:g}" for name, value in score.items())


def new_decoder(
    config: HypernetworkConfig, prepared: Prepared, eyes: Eyes, seed: int, learn_basis: bool = False
) -> WeightDecoder:
    """A decoder that predicts no change yet: the same for the same seed and faces, on the CPU."""
    features = prepared.rows("features", np.arange(min(prepared.count, _WHITENED)))[:, 0].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = WeightDecoder(config, features.shape[-1])
    decoder.whiten(features)
    if learn_basis:
        decoder.learn_basis()
    if config.identity_width:
        weight, bias = eyes.identity_head
        decoder.identity_weight.copy_(weight)
        decoder.identity_bias.copy_(bias)
        decoder.identity_centre.copy_(prepared.center)
    return decoder


def placed(decoder: WeightDecoder, device: torch.device) -> WeightDecoder:
    """The decoder on `device`, with its basis where that is no part of its state."""
    if isinstance(decoder.config.basis, StoredBasis):
        decoder.basis = decoder.config.basis.to(device)
    return decoder.to(device)


def with_encoder(
    config: HypernetworkConfig, eyes: Eyes, decoder_file: Path, readers: Readers | None = None
) -> Hypernetwork:
    """The trained decoder and the encoder together, and the recognizers that read this checkpoint's latents, where
    they know the encoder's identities. Raises FileError when the file is damaged."""
    try:
        weights = load_file(decoder_file)
        network = Hypernetwork(with_learned_basis(config, weights))
        network.decoder.load_state_dict(weights)
    except (RuntimeError, OSError, ValueError) as error:
        raise FileError(f"{decoder_file} cannot be used ({error}): delete it and start again.") from error
    network.encoder.load_state_dict(eyes.encoder.state_dict())
    if readers is not None and eyes.own:
        network.carry(readers)
    return network.eval()


def with_learned_basis(config: HypernetworkConfig, weights: dict[str, torch.Tensor]) -> HypernetworkConfig:
    """`config` with the basis that was trained with the decoder, which is taken out of its `weights`; unchanged where
    there is none."""
    if not any(key.startswith(A_PREFIX) for key in weights):
        return config
    a_aux, b_aux = (
        {layer.key: weights.pop(prefix + layer.key) for layer in config.architecture.layers}
        for prefix in (A_PREFIX, B_PREFIX)
    )
    return replace(config, basis=StoredBasis.of("learned", a_aux, b_aux))
