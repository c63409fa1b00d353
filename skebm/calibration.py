"""From energies to decisions: thresholds, conformal p-values, false discoveries."""

import numpy as np
from scipy.stats import false_discovery_control, norm

FALSE_ALARM_RATE = 0.05
"""Share of normal rows that ``contamination="auto"`` aims to flag."""

CLEAR = 1e-6
"""Chance under the fitted null below which an energy is a clear anomaly's."""

CLEAR_GAP = 1e-5
"""Chance in an exponential tail of as wide a gap as that before clear anomalies."""


def conformal_p_values(energy, calibration, *, own=None):
    """Return p-values of energies against calibration energies.

    p = (1 + #{calibration >= energy}) / (1 + n). If the row and the calibration rows
    are exchangeable, P(p <= a) <= a for every a. A row that is itself a calibration
    row is left out of the count and of n.

    Parameters
    ----------
    energy : array-like of shape (n_samples,)
        Energies to judge, higher = stranger.
    calibration : array-like of shape (n_calibration,)
        Energies of normal rows, measured in the same way, n_calibration >= 1.
    own : array-like of shape (n_samples,) of bool, default=None
        Whether each row is one of the calibration rows.

    Returns
    -------
    ndarray of shape (n_samples,)
        p-values in (0, 1]; small = strange.

    References
    ----------
    .. [1] Bates, Candes, Lei, Romano, Sesia (2023), Testing for outliers with
       conformal p-values, Annals of Statistics 51(1).

    Examples
    --------
    >>> from skebm.calibration import conformal_p_values
    >>> conformal_p_values([0.0, 9.0], [1.0, 2.0, 3.0])
    array([1.  , 0.25])
    """
    calibration = np.sort(np.asarray(calibration, dtype=np.float64))
    energy = np.asarray(energy, dtype=np.float64)
    own = np.zeros(len(energy), bool) if own is None else np.asarray(own, bool)
    n = len(calibration)
    at_least = n - np.searchsorted(calibration, energy, side="left")
    return (1 + at_least - own) / (1 + n - own)


def benjamini_hochberg(p_values, q=0.05):
    """Return which rows to call anomalies at false discovery rate q.

    Parameters
    ----------
    p_values : array-like of shape (n_samples,)
        p-values in [0, 1].
    q : float, default=0.05
        Bound on the expected share of false calls among the calls, in (0, 1).

    Returns
    -------
    ndarray of shape (n_samples,) of bool
        True = anomaly.

    Raises
    ------
    ValueError
        If q is not in (0, 1).

    References
    ----------
    .. [1] Benjamini, Hochberg (1995), Controlling the false discovery rate, Journal
       of the Royal Statistical Society B 57(1).

    Examples
    --------
    >>> from skebm.calibration import benjamini_hochberg
    >>> benjamini_hochberg([0.001, 0.2, 0.9], q=0.05)
    array([ True, False, False])
    """
    if not 0 < q < 1:
        raise ValueError(f"q must be in (0, 1); got q={q!r}. Usual values: 0.05, 0.1.")
    return false_discovery_control(np.asarray(p_values, np.float64)) <= q


def conformal_threshold(calibration, rate=FALSE_ALARM_RATE):
    """Return the energy that a new normal row exceeds with probability <= rate.

    The ceil((1 - rate)(n + 1))-th smallest calibration energy; the largest where n is
    too small for the rate.

    Parameters
    ----------
    calibration : array-like of shape (n_calibration,)
        Energies of normal rows.
    rate : float, default=0.05
        False-alarm rate, in (0, 1).

    Returns
    -------
    float
        Rows above it are anomalies.

    References
    ----------
    .. [1] Vovk, Gammerman, Shafer (2005), Algorithmic learning in a random world,
       Springer.

    Examples
    --------
    >>> from skebm.calibration import conformal_threshold
    >>> conformal_threshold(range(1, 100), rate=0.05)
    95.0
    """
    ordered = np.sort(np.asarray(calibration, np.float64))
    place = int(np.ceil((1 - rate) * (len(ordered) + 1) - 1e-9))
    return float(ordered[min(place, len(ordered)) - 1])


def without_clear_anomalies(calibration):
    """Return the energies that may belong to normal rows, clear anomalies dropped.

    The central energies, from the 5th to the 80th percentile, are fitted by
    asinh((E - median) / (8 IQR)) = a + b z + c z^2, c >= 0, in the normal quantile z
    of their rank: the empirical null, its long upper tail tamed by the asinh [1]_.
    Clear anomalies lie above its 1 - 1e-6 quantile, behind a gap. In an exponential
    tail of mean excess s, i times the gap below the i-th highest energy is exponential
    with mean s [2]_; a gap that has a chance of 1e-5 there is no part of the tail.
    Heavy tails have no such gap and stay whole. Energies
    of which most are equal to another, as in discrete tables, have gaps everywhere:
    theirs must be wider than all energies below it are apart.

    Parameters
    ----------
    calibration : array-like of shape (n_calibration,)
        Energies of rows that may hold anomalies, up to about one in ten; more pull
        the curve up and stay in.

    Returns
    -------
    ndarray of shape (n_kept,)
        The others, sorted.

    References
    ----------
    .. [1] Efron (2004), Large-scale simultaneous hypothesis testing: the choice of a
       null hypothesis, Journal of the American Statistical Association 99(465).
    .. [2] Renyi (1953), On the theory of order statistics, Acta Mathematica Academiae
       Scientiarum Hungaricae 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.calibration import without_clear_anomalies
    >>> len(without_clear_anomalies(np.r_[np.linspace(0, 1, 90), np.full(10, 99.0)]))
    90
    """
    ordered = np.sort(np.asarray(calibration, np.float64))
    level = (np.arange(len(ordered)) + 1) / (len(ordered) + 1)
    central = (level >= 0.05) & (level <= 0.8)
    middle = ordered[central]
    if len(middle) < 10:
        return ordered
    if 2 * len(np.unique(middle)) < len(middle):
        return ordered[: len(ordered) - _behind_widest(ordered, ordered[central][-1])]
    z = norm.ppf(level[central])
    low, median, high = np.quantile(ordered, [0.25, 0.5, 0.75])
    shown = np.arcsinh((ordered - median) / (8 * (high - low) or 1.0))
    curve = np.polynomial.polynomial.polyfit(z, shown[central], 2)
    if curve[2] < 0:
        curve = np.polynomial.polynomial.polyfit(z, shown[central], 1)
    limit = np.polynomial.polynomial.polyval(norm.isf(CLEAR), curve)
    tail = shown[central.nonzero()[0][-1] :]
    n_beyond = np.count_nonzero(tail > max(limit, tail[0]))
    n_clear = _behind_gap(tail, n_beyond)
    return ordered[: len(ordered) - n_clear]


def _behind_gap(tail, n_most):
    """Return how many of the highest values, n_most at most, lie behind a clear gap.

    The mean excess of the sorted ``tail`` above its first value is the maximum
    likelihood estimate with the values behind the gap censored.
    """
    n_behind = np.arange(n_most, 0, -1)
    n_below = len(tail) - n_behind
    excess = tail - tail[0]
    last = excess[n_below - 1]
    mean_excess = (np.cumsum(excess)[n_below - 1] + n_behind * last) / n_below
    spacing = n_behind * (excess[n_below] - last)
    is_clear = spacing > -np.log(CLEAR_GAP) * mean_excess
    return int(n_behind[is_clear].max(initial=0))


def _behind_widest(ordered, floor):
    """Return how many values above ``floor`` lie behind a gap wider than the rest."""
    n_behind = np.arange(np.count_nonzero(ordered > floor), 0, -1)
    last = ordered[len(ordered) - n_behind - 1]
    gap = ordered[len(ordered) - n_behind] - last
    span = last - ordered[0]
    return int(n_behind[(gap > span) & (span > 0)].max(initial=0))
