"""Every error and warning that pofx raises on purpose.

All errors derive from :class:`PofxError`, and also from the builtin that fits best, so that both ``except PofxError`` and
``except ValueError`` work. A message says what was expected, what came, and where. The command line prints the message alone.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "CapabilityError",
    "ColumnError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "FormatError",
    "MissingExtraError",
    "NoDensityError",
    "NonFiniteError",
    "NotFittedError",
    "PofxError",
    "PofxWarning",
    "RangeWarning",
    "ShapeError",
    "SolverError",
    "TrainingError",
]


class PofxError(Exception):
    """Base of every error that pofx raises on purpose."""


class DataError(PofxError, ValueError):
    """The data are unusable as they are: empty, too few rows, constant columns, weights that sum to nothing."""


class FormatError(DataError):
    """A file is missing, of another format than its name says, truncated, or holds objects that would need pickle."""


class ColumnError(DataError):
    """A column is unknown, duplicated, declared twice, or its declaration makes no sense."""


class ShapeError(DataError):
    """An array has another shape than the model or the data set needs."""


class NonFiniteError(DataError):
    """NaN or infinity where a number is needed; the message names row and column."""


class ConfigError(PofxError, ValueError):
    """A setting of a family, of a network or of the training is out of its range or unknown."""


class CapabilityError(PofxError, TypeError):
    """The family does not do what was asked (this kind of field, this operation, this combination)."""


class NoDensityError(CapabilityError):
    """The family has no density; the message names what to use instead."""


class NotFittedError(PofxError, AttributeError):
    """A config was used as if it were a fitted model; use the object that ``fit`` returned."""


class TrainingError(PofxError, RuntimeError):
    """Training cannot start or cannot go on (no checkpoint to resume, incompatible state, exhausted source)."""


class DivergenceError(TrainingError, ArithmeticError):
    """A loss, a gradient or a weight became NaN or infinite; the message names the update, the event and the layer."""


class SolverError(PofxError, ArithmeticError):
    """An integration failed: the field is not finite, the step budget is spent, or the step became too small."""


class ArtefactError(PofxError, ValueError):
    """A saved model is damaged, of a newer format, or does not reproduce its own validation vectors."""


class MissingExtraError(PofxError, ImportError):
    """An optional package is needed; the message has the one command that installs it."""


class PofxWarning(UserWarning):
    """Base of every warning that pofx gives."""


class RangeWarning(PofxWarning):
    """Inputs lie outside the range that the model was trained on or that was declared for the column."""
