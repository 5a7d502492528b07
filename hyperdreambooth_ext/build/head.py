"""Who is who, out of the image encoder's features; made anew for the faces of a build."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Directions in which a checkpoint's faces differ much count less, by this power of their variance, and ones in which
# they hardly differ not more than if they had this share of the mean variance (docs/any-checkpoint.md).
SPREAD, LEAST = 0.25, 0.1


@dataclass(frozen=True)
class Head:
    """Who is who, out of the encoder's features: weight [128, channels] and bias [128]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, tokens, channels] -> who it is [B, 128]; the cosine of two tells whether they are one person."""
        return F.linear(features.mean(1), self.weight, self.bias)

    def told_apart(self, features: torch.Tensor) -> "Head":
        """The head for faces such as these, [B, tokens, channels].

        What they have in common says nothing about who they are, and a recogniser that was taught on sharp photos sees
        much in common in the pictures of a checkpoint.
        """
        seen = self(features.to(self.weight))
        middle = seen.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov((seen - middle).T).cpu())
        scales = (variances.clamp(min=0) + LEAST * variances.mean()) ** -SPREAD
        matrix = (directions * (scales / scales.mean()) @ directions.T).to(self.weight)
        return Head(matrix @ self.weight, matrix @ (self.bias - middle))
