"""Errors that a user can mend. The command line prints them as one line and exits with code 2."""

_LONGEST_MESSAGE = 10_000  # characters; names in strangers' files may have any length


class UserError(ValueError):
    """Says in one line what is wrong, where (file, key, line), and what to do.

    Files name things as they like: control characters (new lines, escape sequences) are shown as escapes, and a
    message without end is cut.
    """

    def __init__(self, message: str):
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if len(shown) > _LONGEST_MESSAGE:
            shown = f"{shown[: _LONGEST_MESSAGE - 300]} … {shown[-290:]}"
        super().__init__(shown)


class AudioError(UserError):
    """An audio file, or the samples in it, cannot be used."""


class ConfigError(UserError):
    """A configuration key or value is wrong."""


class ManifestError(UserError):
    """A data manifest, or one of its entries, is wrong."""


class CheckpointError(UserError):
    """A checkpoint folder is missing, incomplete or does not fit."""


RESTART = 75  # the exit code of a run that should be started again as it is: EX_TEMPFAIL of sysexits.h
_INTERRUPTED = 130  # that of Ctrl-C by custom: not to be started again


class RunEndedError(Exception):
    """A training run has ended before its time, and there is nothing to mend: said in a line, with its exit code."""

    exit_code = 1


class StoppedRunError(RunEndedError):
    """It was told to stop, has saved what it had, and will go on from there when it is started again."""

    def __init__(self, message: str, signal_name: str):
        super().__init__(message)
        self.exit_code = _INTERRUPTED if signal_name == "SIGINT" else RESTART


class LostProcessError(RunEndedError):
    """Another process of the run has not come, or is gone."""


def exit_code(error: BaseException) -> int:
    """Of a command that ends with an error: 2 for a mistake of the user's, else 1, or what the error says."""
    if isinstance(error, RunEndedError):
        return error.exit_code
    return 2 if isinstance(error, UserError | OSError) else 1


def nearest(word: str, choices: list[str]) -> str:
    """` (did you mean 'x'?)` for the choice nearest to a misspelt word, or an empty string."""
    import difflib

    found = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
