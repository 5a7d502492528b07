"""The sheet of pictures lies a floor lower, where the building of hypernetworks draws one too."""

from ..personalize.sheet import Cell, picture_sheet, save_png

__all__ = ["Cell", "picture_sheet", "save_png"]
