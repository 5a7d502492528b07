"""What a user asks for: one photo, a name, and the options."""

from dataclasses import dataclass, field, replace

from ..errors import UserError
from ..files import checked_name
from ..images.photo import Photo
from ..personalize.options import PersonalizeOptions, check


@dataclass(frozen=True)
class Task(PersonalizeOptions):
    """One personalization; the options are given by name.

    `hypernetwork` names a file in the hypernetworks' folders, "" the one that fits the checkpoint best.
    """

    photo: Photo = field(repr=False)
    name: str

    def checked(self) -> "Task":
        """The same task with a clean name. Raises UserError for a value that cannot be."""
        check(self)
        if self.hypernetwork and self.start in ("gradient", "zero"):
            raise UserError(f"The {self.start} start takes no hypernetwork: set one of the two back to Automatic.")
        return replace(self, name=checked_name(self.name))
