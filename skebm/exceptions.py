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


class NotNormalizableError(SkebmError, ValueError):
    """exp(-E) has an infinite integral: E does not rise far from the data."""


class DivergenceError(SkebmError, RuntimeError):
    """Training met non-finite losses twice; the message holds epoch and step size."""


class NotMixedWarning(UserWarning):
    """Chains disagree with each other, so their draws do not stand for the density."""


class PartitionWarning(UserWarning):
    """The estimate of log Z rests on few effective draws, or two estimates disagree."""
