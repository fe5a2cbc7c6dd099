"""The one error hierarchy of the library.

Every error a user can cause is an `LdHubError`. Each class also subclasses the built-in error that a user would
catch by habit. Messages name the thing, what was found, what was expected, and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LdHubError(Exception):
    """Base of all errors raised on purpose by `ld_hub`."""


class ConfigError(LdHubError, ValueError):
    """An argument, flag or configuration field has a value that cannot work."""


class UnknownNameError(LdHubError, ValueError):
    """A model, tag, recipe, term or region name that is not registered."""


class DataError(LdHubError, ValueError):
    """A data set, annotation or image that cannot be used as it is."""


class MissingFileError(LdHubError, FileNotFoundError):
    """A file or directory that was named and does not exist."""


class CheckpointError(LdHubError, RuntimeError):
    """Weights that do not fit the model, or a weights file that cannot be read."""


class CacheError(LdHubError, RuntimeError):
    """A cache that was made for something else, or whose files are damaged."""


class HubError(LdHubError, RuntimeError):
    """A download from or upload to the Hub that failed."""


class EvaluationError(LdHubError, ValueError):
    """Detections that an evaluator refuses to score (non-finite boxes, unknown images or categories)."""


class ExportError(LdHubError, RuntimeError):
    """An exported detector that does not give what its model gives."""


class NonFiniteLossError(LdHubError, RuntimeError):
    """A loss became NaN or infinite; raised before the optimizer step."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for an unregistered name, with the closest registered ones.

    Args:
        kind: What the name should have been, e.g. ``"model"`` or ``"recipe"``.
        name: The name as given.
        known: All registered names.
        hint: How to list them, appended as a last sentence.

    Returns:
        The error, to be raised by the caller.
    """
    candidates = sorted(known)
    close = difflib.get_close_matches(name, candidates, n=5, cutoff=0.5)
    if close:
        middle = f" Close matches: {', '.join(close)}."
    elif len(candidates) <= 12:
        middle = f" Known: {', '.join(candidates) or 'none'}."
    else:
        middle = ""
    return UnknownNameError(f"Unknown {kind} '{name}'.{middle}{' ' + hint if hint else ''}")
