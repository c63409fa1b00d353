"""Do chains agree (R-hat), and what are their draws worth (effective sample size)."""

import math

import torch
from torch import Tensor


def split_rhat(draws: Tensor) -> Tensor:
    """Return the rank-normalised split R-hat.

    Each chain is cut in two halves. R-hat = sqrt((B / W + n - 1) / n) with n draws per
    half, the variance B / n between the halves' means and the mean W of their
    variances; draws are replaced by normal scores of their ranks. The larger of two
    values is returned: of the draws, and of their distances from the median.

    Parameters
    ----------
    draws : Tensor of shape (n_draws, n_chains, d)
        Draws in order, n_draws >= 4.

    Returns
    -------
    Tensor of shape (d,)
        float64; about 1 where the chains agree, NaN where nothing moves.

    References
    ----------
    .. [1] Vehtari, Gelman, Simpson, Carpenter, Burkner (2021), Rank-normalization,
       folding, and localization: an improved R-hat, Bayesian Analysis 16(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import split_rhat
    >>> x = torch.randn(1000, 4, 1, generator=torch.Generator().manual_seed(0))
    >>> round(split_rhat(x).item(), 2)
    1.0
    >>> apart = x + torch.tensor([0.0, 0.0, 0.0, 5.0])[:, None]
    >>> bool(split_rhat(apart) > 1.5)
    True
    """
    halves = _split(draws)
    flat = halves.flatten(1).sort(1).values
    n = flat.shape[1]
    median = (flat[:, (n - 1) // 2] + flat[:, n // 2]) / 2
    folded = (halves - median[:, None, None]).abs()
    return torch.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def bulk_ess(draws: Tensor) -> Tensor:
    """Return the bulk effective sample size.

    N / tau with tau = 1 + 2 * the sum of the autocorrelations rho_t of the normal
    scores of the split chains, the sum cut by Geyer's initial monotone sequence: pairs
    rho_2k + rho_2k+1 as long as they are positive, and no pair above an earlier one.

    Parameters
    ----------
    draws : Tensor of shape (n_draws, n_chains, d)
        Draws in order, n_draws >= 4.

    Returns
    -------
    Tensor of shape (d,)
        float64, at most N log10 N for chains that swing from side to side.

    References
    ----------
    .. [1] Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4).
    .. [2] Vehtari, Gelman, Simpson, Carpenter, Burkner (2021), Rank-normalization,
       folding, and localization: an improved R-hat, Bayesian Analysis 16(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import bulk_ess
    >>> x = torch.randn(1000, 4, 1, generator=torch.Generator().manual_seed(0))
    >>> 3500 < bulk_ess(x).item() < 4500
    True
    >>> bulk_ess(x.repeat_interleave(10, 0)).item() < 5000
    True
    """
    halves = _split(draws)
    rho = _autocorrelation(_normal_scores(halves))
    size = halves[0].numel()
    tau = _geyer_time(rho).clamp(min=1 / math.log10(size))
    still = halves.flatten(1).amax(1) - halves.flatten(1).amin(1) < 1e-15
    return torch.where(still, torch.full_like(tau, size), size / tau)


def _split(draws: Tensor) -> Tensor:
    """Return halves of chains, shape (d, 2 * n_chains, n_draws // 2), float64."""
    if draws.ndim != 3 or len(draws) < 4:
        raise ValueError(
            "Diagnostics need draws of shape (n_draws, n_chains, d) with n_draws >= 4; "
            f"got shape {tuple(draws.shape)}."
        )
    half = len(draws) // 2
    halves = torch.cat([draws[:half], draws[-half:]], 1)
    return halves.double().permute(2, 1, 0).contiguous()


def _normal_scores(halves: Tensor) -> Tensor:
    """Return normal scores of the ranks within each column; ties share their mean."""
    flat = halves.flatten(1)
    n = flat.shape[1]
    ordered, order = flat.sort(1)
    place = torch.arange(n, device=flat.device).expand_as(order)
    step = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones_like(step[:, :1])
    first = place.where(torch.cat([edge, step], 1), 0).cummax(1).values
    last = place.where(torch.cat([step, edge], 1), n - 1).flip(1).cummin(1).values
    rank = (first + last.flip(1) + 2).double() / 2
    scores: Tensor = torch.special.ndtri((rank - 0.375) / (n + 0.25))
    return torch.empty_like(flat).scatter_(1, order, scores).view_as(halves)


def _rhat(z: Tensor) -> Tensor:
    """Return R-hat of z of shape (d, n_halves, n)."""
    n = z.shape[2]
    between = z.mean(2).var(1)
    within = z.var(2).mean(1)
    rhat: Tensor = between / within + (n - 1) / n
    return rhat.sqrt()


def _autocorrelation(z: Tensor) -> Tensor:
    """Return the autocorrelations over all chains, shape (d, n), lag 0 first."""
    n = z.shape[2]
    centred = z - z.mean(2, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * n).abs().square()
    covariance = torch.fft.irfft(spectrum, 2 * n)[:, :, :n].mean(1) / n
    within = covariance[:, :1] * n / (n - 1)
    total = covariance[:, :1] + z.mean(2).var(1)[:, None]
    rho: Tensor = 1 - (within - covariance) / total
    rho[:, 0] = 1.0
    return rho


def _geyer_time(rho: Tensor) -> Tensor:
    """Return -1 + 2 * the sum of rho over the initial monotone sequence, shape (d,).

    The first even rho after the pairs counts once, unless it and its pair are negative.
    """
    n_pairs = max(0, (rho.shape[1] - 3) // 2)
    even, odd = rho[:, 0 : 2 * n_pairs + 1 : 2], rho[:, 1 : 2 * n_pairs + 2 : 2]
    pairs = even + odd
    positive = (pairs[:, :n_pairs] > 0).long().cumprod(1)
    monotone = (pairs[:, :n_pairs].cummin(1).values * positive).sum(1)
    end = positive.sum(1, keepdim=True)
    after, pair = even.gather(1, end)[:, 0], pairs.gather(1, end)[:, 0]
    return -1 + 2 * monotone + torch.where(pair >= 0, after, after.clamp(min=0))
