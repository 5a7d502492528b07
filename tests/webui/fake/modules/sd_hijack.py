from types import SimpleNamespace

import ldm.modules.attention
import ldm.modules.diffusionmodules.model
import ldm.modules.diffusionmodules.openaimodel  # noqa: F401

_original = ldm.modules.attention.CrossAttention.forward


def _library():
    """Stands for `sgm`, which no package index has: classes of its names."""
    attention = SimpleNamespace(CrossAttention=type("CrossAttention", (), {"forward": lambda self: None}))
    model = SimpleNamespace(AttnBlock=type("AttnBlock", (), {"forward": lambda self: None}), nonlinearity=abs)
    return SimpleNamespace(modules=SimpleNamespace(attention=attention, diffusionmodules=SimpleNamespace(model=model)))


sgm = _library()


def undo_optimizations():
    ldm.modules.attention.CrossAttention.forward = _original
