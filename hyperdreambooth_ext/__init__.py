"""HyperDreamBooth for Stable Diffusion: one photo of a face becomes a LiDB file of about 100 KB."""

__version__ = "0.2.0"
