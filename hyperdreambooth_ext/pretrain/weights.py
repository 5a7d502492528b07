"""The new decoder before training, and one that was trained, as a hypernetwork."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .. import __version__
from ..errors import FileError
from ..hypernet.claims import Unfilled
from ..hypernet.config import HypernetworkConfig
from ..hypernet.embedder import FaceEmbedder
from ..hypernet.hypernetwork import Hypernetwork, WeightDecoder
from ..hypernet.latent_identity import LatentIdentityEnsemble
from ..lidb.layers import Architecture
from .context import Context
from .prepare import Prepared

# So many faces are enough to know what all features have in common.
_WHITENED = 512


def configuration(context: Context, faces: int) -> HypernetworkConfig:
    """What the new hypernetwork's file says about itself."""
    options, host, embedder = context.options, context.host, context.embedder
    if options.photos:
        trained_on = f"{faces:,} photos of faces"
    elif options.shards:
        trained_on = f"{faces:,} faces out of webdataset shards"
    else:
        trained_on = f"{faces:,} faces that {host.checkpoint_name or 'the checkpoint'} sampled itself"
    return HypernetworkConfig(
        Architecture.of(host.linears()), width=options.width, depth=options.depth, iterations=options.iterations,
        family=host.family, checkpoint=host.checkpoint_name, checkpoint_hash=host.checkpoint_hash,
        centered=embedder.bundled, through_autoencoder=options.samples_faces, trained_on=trained_on,
        made_with=f"hyperdreambooth_ext {__version__}", **embedder.settings,  # type: ignore[arg-type]
    )  # fmt: skip


def new_decoder(context: Context, config: HypernetworkConfig, prepared: Prepared) -> WeightDecoder:
    """A decoder that predicts no change yet: the same for the same seed and faces, on the CPU."""
    features = prepared.rows("features", np.arange(min(prepared.count, _WHITENED)))[:, 0].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.options.seed)
        decoder = WeightDecoder(config, features.shape[-1])
    decoder.whiten(features)
    if config.identity_width:
        weight, bias = context.embedder.identity_head
        decoder.identity_weight.copy_(weight)
        decoder.identity_bias.copy_(bias)
        decoder.identity_center.copy_(prepared.center)
    return decoder


def with_encoder(
    config: HypernetworkConfig, embedder: FaceEmbedder, decoder_file: Path, identity_net: LatentIdentityEnsemble | None
) -> Hypernetwork:
    """The trained decoder and the encoder together, and the latent identity nets where they know the encoder's
    identities. Raises FileError when the file is damaged."""
    try:
        with Unfilled():
            network = Hypernetwork(config)
        network.decoder.load_state_dict(load_file(decoder_file))
    except (RuntimeError, OSError, ValueError) as error:
        raise FileError(f"{decoder_file} cannot be used ({error}): delete it and start again.") from error
    network.encoder.load_state_dict(embedder.encoder.state_dict())
    if identity_net is not None and embedder.bundled:
        network.carry(identity_net)
    return network.eval()
