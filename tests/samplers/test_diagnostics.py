"""R-hat and effective sample size against theory and against ArviZ."""

import warnings

import numpy as np
import pytest
import torch

from skebm.samplers import bulk_ess, split_rhat

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def autoregressive(n, n_chains, rho, seed=0):
    """Return x_t = rho x_(t-1) + sqrt(1 - rho^2) z_t, shape (n, n_chains, 1)."""
    z = torch.randn(n, n_chains, generator=generator(seed), dtype=DOUBLE)
    x = z.clone()
    for t in range(1, n):
        x[t] = rho * x[t - 1] + (1 - rho**2) ** 0.5 * z[t]
    return x[:, :, None]


def arviz():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
        return pytest.importorskip("arviz")


@pytest.mark.parametrize("rho", [0.9, 0.5, 0.0, -0.5])
def test_effective_size_of_an_autoregression(rho):
    """ESS = N (1 - rho) / (1 + rho)."""
    ess = bulk_ess(autoregressive(4000, 16, rho)).item()
    n = 4000 * 16
    assert ess == pytest.approx(n * (1 - rho) / (1 + rho), rel=0.1)


CASES = {
    "independent": lambda: autoregressive(500, 4, 0.0),
    "sticky": lambda: autoregressive(500, 4, 0.95),
    "swinging": lambda: autoregressive(301, 3, -0.7),
    "one_chain": lambda: autoregressive(400, 1, 0.5),
    "odd": lambda: autoregressive(77, 5, 0.3),
    "short": lambda: autoregressive(10, 4, 0.3),
    "shortest": lambda: autoregressive(4, 2, 0.0),
    "apart": lambda: autoregressive(500, 4, 0.5) + torch.arange(4)[:, None],
    "wide_and_narrow": lambda: (
        autoregressive(500, 4, 0.5) * 2.0 ** torch.arange(4)[:, None]
    ),
    "ties": lambda: autoregressive(500, 4, 0.8).mul(2).round(),
    "heavy_tails": lambda: autoregressive(500, 4, 0.6).pow(5),
    "drift": lambda: (
        autoregressive(500, 4, 0.5) + torch.linspace(0, 3, 500)[:, None, None]
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_diagnostics_equal_those_of_arviz(case):
    az, draws = arviz(), CASES[case]()
    theirs = draws[:, :, 0].T.numpy()
    rhat, ess = split_rhat(draws).item(), bulk_ess(draws).item()
    assert ess == pytest.approx(float(az.ess(theirs, method="bulk")), rel=1e-6)
    if len(theirs) > 1:
        expected = float(az.rhat(theirs, method="rank"))
        assert rhat == pytest.approx(expected, rel=1e-6)


def test_many_autoregressions_equal_arviz():
    az, rhos = arviz(), enumerate([0.1, 0.7] * 10)
    draws = torch.cat([autoregressive(200, 4, rho, seed) for seed, rho in rhos], 2)
    ess = bulk_ess(draws)
    for j in range(20):
        theirs = float(az.ess(draws[:, :, j].T.numpy(), method="bulk"))
        assert ess[j].item() == pytest.approx(theirs, rel=1e-6)


def test_columns_do_not_meet():
    draws = torch.cat([autoregressive(200, 4, 0.5, s) for s in range(3)], 2)
    for diagnostic in (split_rhat, bulk_ess):
        alone = torch.cat([diagnostic(draws[:, :, j : j + 1]) for j in range(3)])
        torch.testing.assert_close(diagnostic(draws), alone)


def test_chains_that_agree_and_chains_that_do_not():
    draws = autoregressive(1000, 4, 0.3)
    assert 0.999 < split_rhat(draws).item() < 1.005
    apart = draws + torch.tensor([0.0, 0.0, 0.0, 3.0], dtype=DOUBLE)[:, None]
    assert split_rhat(apart).item() > 1.3
    wider = draws * torch.tensor([1.0, 1.0, 1.0, 9.0], dtype=DOUBLE)[:, None]
    assert split_rhat(wider).item() > 1.1


def test_diagnostics_do_not_depend_on_the_units():
    draws = autoregressive(300, 4, 0.5)
    for diagnostic in (split_rhat, bulk_ess):
        other = diagnostic((3 + 1e-3 * draws).exp())
        torch.testing.assert_close(diagnostic(draws), other)


def test_draws_that_do_not_move():
    still = torch.zeros(100, 4, 2)
    assert split_rhat(still).isnan().all()
    assert bulk_ess(still).tolist() == [400.0, 400.0]
    np.testing.assert_equal(bulk_ess(still).dtype, DOUBLE)


@pytest.mark.parametrize("shape", [(3, 4, 1), (100, 4), (100,)])
def test_shape_of_the_draws_is_checked(shape):
    for diagnostic in (split_rhat, bulk_ess):
        with pytest.raises(
            ValueError, match=r"draws of shape \(n_draws, n_chains, d\)"
        ):
            diagnostic(torch.zeros(shape))
