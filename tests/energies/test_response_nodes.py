"""The sum over nodes, against logsumexp in double precision."""

import torch
from torch.testing import assert_close

from skebm.energies.response_nodes import log_sum


def far_terms():
    """Return log-weights from 0 to -200 above a level of 300, in random order."""
    generator = torch.Generator().manual_seed(0)
    terms = 300 - 200 * torch.rand(6, 40, generator=generator)
    terms[0, 1:] = 150.0  # one term that is all of the sum, among far ones
    terms[0, 0] = 300.0
    return terms.requires_grad_()


def test_log_sum_and_its_gradient_are_those_of_all_terms():
    terms = far_terms()
    exact = terms.detach().double().requires_grad_()
    found, expected = log_sum(terms), exact.logsumexp(-1)
    assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found.sum().backward()
    expected.sum().backward()
    # Beyond the floor a term has no gradient; its own would be below e^-70.
    assert_close(terms.grad.double(), exact.grad, rtol=1e-4, atol=1e-12)


def test_no_number_of_the_sum_is_denormal():
    terms = far_terms()
    log_sum(terms).sum().backward()
    sizes = terms.grad[terms.grad != 0].abs()
    assert sizes.min() >= torch.finfo(torch.float32).tiny
