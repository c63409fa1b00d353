"""Errors and warnings that skebm raises; each message says got, wanted, next step."""


class SkebmError(Exception):
    """Root of every error that skebm defines."""


class DataDomainError(SkebmError, ValueError):
    """Values of X lie outside the domain that the model is defined on."""


class ForkedProcessError(SkebmError, RuntimeError):
    """torch ran in the parent before this process was forked; running it would hang."""


class NotNormalizedError(SkebmError, AttributeError):
    """The energy has no known normaliser, so its mean log-density is no score."""


class InterruptedFitWarning(UserWarning):
    """Ctrl-C ended ``fit`` early; the estimator is fitted on less than was asked."""
