"""Each member keeps the epoch that its own held-out rows like best."""

import math

import pytest
import torch

from skebm._torch import make_generator
from skebm.energies import ResponseEnergy
from skebm.estimators.member_stopping import MemberStopping


@pytest.fixture
def energy():
    """A Student law around zero without slopes, for two members."""
    energy = ResponseEnergy(n_members=2, hidden=(4,), n_tilts=0)
    return energy.build(2, generator=make_generator(0)).requires_grad_(False)


def rows():
    """Return ten rows for each member, the second one's ten times as wide."""
    y = torch.linspace(-1, 1, 10)
    member = torch.arange(2.0).repeat_interleave(10)
    y = torch.cat([y, 10 * y])
    return torch.stack([torch.zeros(20), y, member, torch.ones(20)], 1)


def test_members_stop_at_their_own_epochs(energy):
    stopping = MemberStopping(energy, rows(), 2, 0)
    ends = []
    for epoch, width in enumerate((0.5, 1.0, 2.0, 6.0, 60.0, 600.0)):
        energy.log_width.fill_(math.log(width))
        ends.append(stopping(epoch, {}))
    stopping.settle()
    found = energy.log_width.exp()[:, 0].tolist()
    assert found[0] == pytest.approx(0.5)
    assert found[1] == pytest.approx(6.0)
    assert ends == [False, False, False, False, False, True]
    assert len(stopping.losses) == 6


def test_weights_count_and_the_loss_is_their_mean(energy):
    x = rows()
    x[:10, 3] = 3.0
    stopping = MemberStopping(energy, x, None, 0)
    assert not any(stopping(epoch, {}) for epoch in range(30))
    log_p = energy.member_log_density(x)
    own = torch.cat([log_p[0, :10], log_p[1, 10:]])
    assert stopping.losses[0] == pytest.approx(float(-(own @ x[:, 3]) / x[:, 3].sum()))
