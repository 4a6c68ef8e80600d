"""Errors that a user can mend. The command line prints them as one line and exits with code 2."""


class UserError(ValueError):
    """Says in one line what is wrong, where (file, key, line), and what to do."""


class AudioError(UserError):
    """An audio file, or the samples in it, cannot be used."""


class ConfigError(UserError):
    """A configuration key or value is wrong."""


class ManifestError(UserError):
    """A data manifest, or one of its entries, is wrong."""


class CheckpointError(UserError):
    """A checkpoint folder is missing, incomplete or does not fit."""


def nearest(word: str, choices: list[str]) -> str:
    """` (did you mean 'x'?)` for the choice nearest to a misspelt word, or an empty string."""
    import difflib

    found = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
