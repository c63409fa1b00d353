"""Hyperparameters: the rules are scikit-learn's."""

import pytest
from sklearn.base import clone

from skebm._params import Params


class Kernel(Params):
    def __init__(self, width=1.0, *, shape="round"):
        self.width = width
        self.shape = shape


class Pair(Params):
    def __init__(self, first, second=None):
        self.first = first
        self.second = second


def test_get_params_returns_the_constructor_arguments_in_order():
    params = Kernel(2.0).get_params()
    assert list(params.items()) == [("width", 2.0), ("shape", "round")]


def test_get_params_reaches_into_nested_values():
    pair = Pair(Kernel(2.0), Pair(3, Kernel()))
    assert set(pair.get_params(deep=False)) == {"first", "second"}
    params = pair.get_params()
    assert params["first__width"] == 2.0
    assert params["second__first"] == 3
    assert params["second__second__shape"] == "round"
    assert len(params) == 8


def test_a_class_is_no_nested_value():
    assert set(Pair(Kernel).get_params()) == {"first", "second"}


def test_set_params_returns_the_same_object():
    kernel = Kernel()
    assert kernel.set_params(width=3.0, shape="flat") is kernel
    assert (kernel.width, kernel.shape) == (3.0, "flat")
    assert kernel.set_params() is kernel


def test_set_params_reaches_into_nested_values():
    pair = Pair(Kernel(), Pair(Kernel()))
    pair.set_params(first__width=5.0, second__first__shape="flat")
    assert pair.first.width == 5.0
    assert pair.second.first.shape == "flat"
    assert pair.second.first.width == 1.0


@pytest.mark.parametrize(
    "params",
    [
        {"first": Kernel(1.0), "first__width": 7.0},
        {"first__width": 7.0, "first": Kernel(1.0)},
    ],
)
def test_nested_names_are_set_after_the_value_they_reach_into(params):
    pair = Pair(Kernel(2.0)).set_params(**params)
    assert pair.first is params["first"]
    assert pair.first.width == 7.0


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="Invalid parameter 'height' for Kernel") as e:
        Kernel().set_params(height=1)
    assert "['width', 'shape']" in str(e.value)
    with pytest.raises(ValueError, match="Invalid parameter 'third' for Pair"):
        Pair(Kernel()).set_params(third__width=1)
    with pytest.raises(ValueError, match="Invalid parameter 'height' for Kernel"):
        Pair(Kernel()).set_params(first__height=1)


def test_repr_is_the_call():
    pair = Pair(Kernel(2.0), "x")
    assert repr(pair) == "Pair(first=Kernel(width=2.0, shape='round'), second='x')"
    assert repr(eval(repr(pair))) == repr(pair)


def test_clone_makes_new_nested_values():
    pair = Pair(Kernel(2.0), [1])
    again = clone(pair)
    assert repr(again) == repr(pair)
    assert again.first is not pair.first
    assert again.second is not pair.second
