"""A term beside the finetune's diffusion loss: is the person seen in what the model makes of the noisy photo?

Not in the paper; what the hypernetwork's training asks (`hypernet/loss.py`), asked again about the one photo.
"""

import copy
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..hosts.protocol import Host
from ..hypernet.hypernetwork import Hypernetwork
from ..hypernet.likeness import identities_of_images
from ..hypernet.loss import IdentityLoss

# Of 0.1 and 0.4 the better (docs/training.md).
WEIGHT = 0.1


@dataclass(frozen=True)
class LikenessTerm:
    """Recognizers that read latents, and `identity` [1, 128], the unit vector that they should see; on the model's
    device. `weight` is what it counts beside the diffusion loss."""

    loss: IdentityLoss
    identity: torch.Tensor
    weight: float = WEIGHT

    @classmethod
    def of(
        cls, host: Host, hypernetwork: Hypernetwork | None, image: torch.Tensor, weight: float = WEIGHT
    ) -> "LikenessTerm":
        """For the face `image` [1, 3, S, S] in [-1, 1]. Raises UserError when the hypernetwork has no recognizers."""
        if hypernetwork is None or hypernetwork.identity_net is None:
            raise UserError("This hypernetwork holds no recognizers: use another, or an identity weight of 0.")
        # A copy: the hypernetwork stays where it is.
        identity_net = copy.deepcopy(hypernetwork.identity_net).to(host.device)
        return cls(IdentityLoss(identity_net), identities_of_images(hypernetwork, image).to(host.device), weight)

    def unlike(self, guess: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
        """1 − cosine [N] of who is seen in clean latents `guess` [N, 4, h, w] and the person; less where nearly all
        was noise."""
        return self.loss.per_sample(guess.float(), self.identity, alphas_cumprod)
