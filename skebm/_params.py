"""Hyperparameters as constructor arguments, so that values clone, print and nest."""

import inspect
from typing import Any, Self


class Params:
    """Mixin: ``get_params`` and ``set_params`` over the constructor's arguments.

    The rules are scikit-learn's: ``__init__`` only assigns, every argument is an
    attribute of the same name, and ``a__b`` reaches into the value ``a``.
    """

    @classmethod
    def _param_names(cls) -> list[str]:
        """Return the constructor's named arguments, in order."""
        rest = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind not in rest]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Add the hyperparameters of nested values as ``name__inner``.

        Returns
        -------
        dict
            Name to value.
        """
        params = {name: getattr(self, name) for name in self._param_names()}
        if deep:
            nested = {k: v for k, v in params.items() if isinstance(v, Params)}
            for name, value in nested.items():
                for inner, inner_value in value.get_params().items():
                    params[f"{name}__{inner}"] = inner_value
        return params

    def set_params(self, **params: Any) -> Self:
        """Set hyperparameters by name, ``name__inner`` for nested values.

        Parameters
        ----------
        **params : dict
            Name to new value.

        Returns
        -------
        self
            The same object.

        Raises
        ------
        ValueError
            If a name is not a hyperparameter.
        """
        known = self._param_names()
        for key, value in sorted(params.items(), key=lambda item: "__" in item[0]):
            name, _, inner = key.partition("__")
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for {type(self).__name__}. "
                    f"Valid parameters are: {known!r}."
                )
            if inner:
                getattr(self, name).set_params(**{inner: value})
            else:
                setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Print as the call that makes an equal value."""
        inside = ", ".join(f"{k}={v!r}" for k, v in self.get_params(False).items())
        return f"{type(self).__name__}({inside})"


def refuse(owner: object, rules: dict[str, tuple[bool, str]]) -> None:
    """Raise if an attribute breaks its rule.

    Parameters
    ----------
    owner : object
        Whose attributes they are.
    rules : dict
        Name to whether it is valid, and what was expected.

    Raises
    ------
    ValueError
        With the name, the value and what was expected.
    """
    for name, (is_valid, wanted) in rules.items():
        if not is_valid:
            got = getattr(owner, name)
            raise ValueError(f"Got {name}={got!r}, but expected {wanted}.")
