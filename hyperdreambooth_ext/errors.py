"""Errors that are meant for the user: one sentence that says what happened and what to do."""


class UserError(Exception):
    """Something the user can act on. ``str(error)`` is one full sentence, fit to be shown as it is.

    `options` are the names of those that it is about: the command line adds them as flags.
    """

    def __init__(self, sentence: str, *options: str) -> None:
        super().__init__(sentence)
        self.options = options


class PhotoError(UserError):
    """The photo cannot be read, or holds no face that can be used."""


class FileError(UserError):
    """A LiDB, LoRA, hypernetwork or checkpoint file is damaged, foreign, or cannot be written."""


class ArchitectureError(UserError):
    """A file was made for a model of another shape than the one that is loaded."""


class TrainingError(UserError):
    """The finetune cannot start, or its loss is no longer a number."""
