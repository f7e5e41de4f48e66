"""What goes wrong because of what the user gave, in one sentence each."""


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what came, what was wanted and what to do."""


class InputMismatch(UserError):
    """Two inputs do not describe the same particles."""


class UnreadableFile(UserError):
    """A file is missing, truncated or not of the format its name promises."""


class UnknownSetting(UserError):
    """A settings key or value that does not exist."""


class RunFolderBusy(UserError):
    """Another process is training in the run folder."""
