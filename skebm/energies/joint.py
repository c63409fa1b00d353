"""E(x, y) = E(x) - log p(y | x): a classifier and an energy in one."""

from abc import abstractmethod
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.features import FeatureEnergy
from skebm.energies.logits import Logits
from skebm.energies.patterns import ClassPatterns
from skebm.energies.tilted import Tilted


class JointEnergy(Energy):
    """An energy of rows and labels.

    E(x, y) = E(x) - log p(y | x), p(y | x) = softmax_y(s_y(x) / T). With
    f_y(x) = -E(x, y) that is E(x) = -log sum_y exp(f_y(x)) and
    p(y | x) = softmax_y(f_y(x)): one function f tells both.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.
    """

    @property
    @abstractmethod
    def network(self) -> Logits:
        """The logits g and the temperature T.

        Returns
        -------
        Logits
            Built.
        """

    @abstractmethod
    def scores(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return s_y(x), before calibration.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        given : Tensor of shape (n, n_classes) or None, default=None
            log p(x, y) where s reads one and it is known: that of training rows leaves
            their own copies out.

        Returns
        -------
        Tensor of shape (n, n_classes)
            s.
        """

    def features(self, x: Tensor) -> Tensor:
        """Return the features that the logits read.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_outputs)
            Those of the backbone, or x where there is none.
        """
        return self.network.features(x)

    @property
    def n_outputs(self) -> int:
        """Width of the features, once built.

        Returns
        -------
        int
            >= 1.
        """
        backbone, last = self.network.backbone, self.network.last
        return last.in_features if backbone is None else backbone.n_outputs

    @property
    def n_classes(self) -> int:
        """Number of classes, once built.

        Returns
        -------
        int
            >= 2.
        """
        return self.network.last.out_features

    def log_proba(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return log p(y | x).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        given : Tensor of shape (n, n_classes) or None, default=None
            As in `scores`.

        Returns
        -------
        Tensor of shape (n, n_classes)
            In nats.
        """
        scores = self.scores(x, given) / self.network.temperature
        return scores.log_softmax(1)

    def class_energies(self, x: Tensor) -> Tensor:
        """Return E(x, y) of every class.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Low means typical.
        """
        e, scores = self._energy_and_scores(x)
        return e[:, None] - (scores / self.network.temperature).log_softmax(1)

    def _energy_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and s; a subclass whose E and s share work does it once."""
        return self(x), self.scores(x)


class JointNetwork(JointEnergy):
    """The logits of a network as energies [1]_.

    E(x) = -log sum_y exp(g_y(x)) and s = g. At T = 1, E(x, y) = -g_y(x).

    Parameters
    ----------
    backbone : FeatureEnergy or None, default=None
        Whose features the logits read beside the row itself; None: g is linear.
    classes : int, default=2
        Classes, >= 2.

    Notes
    -----
    exp(-E) need not have a finite integral: tilt a density with it (`JointTilted`).

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, JointNetwork
    >>> energy = JointNetwork(MLP(hidden=(16,)), classes=3).build(2)
    >>> round(energy(torch.zeros(1, 2)).item(), 2)  # -log 3
    -1.1
    """

    logits: Logits

    def __init__(self, backbone: FeatureEnergy | None = None, classes: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the layers; the logits start at zero."""
        self.logits = Logits(self.backbone, self.classes)
        self.logits.build(n_features, generator=generator)
        return self

    @property
    def network(self) -> Logits:
        """The logits."""
        return self.logits

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x), shape (n,)."""
        e: Tensor = -self.logits(x).logsumexp(1)
        return e

    def scores(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return g, shape (n, n_classes)."""
        g: Tensor = self.logits(x)
        return g


class JointTilted(Tilted, JointEnergy):
    """A density tilted by the logits of a network.

    p(x) = b(x) sum_y exp(g_y(x)) / Z and s = g, with the g of a `JointNetwork`.

    Parameters
    ----------
    base : Energy
        A normalised density with ``sample`` and ``log_partition``, built.
    tilt : JointNetwork
        The network.
    reach : float or None, default=None
        The network sees columns clipped to [-reach, reach].

    References
    ----------
    .. [1] Arbel, Zhou, Gretton (2021), Generalized energy based models, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import JointNetwork, JointTilted, Quadratic
    >>> energy = JointTilted(Quadratic().build(2), JointNetwork()).build(2)
    >>> round(energy(torch.zeros(1, 2)).item(), 4)  # log 2 pi - log 2
    1.1447
    """

    def __init__(
        self, base: Energy, tilt: JointNetwork, reach: float | None = None
    ) -> None:
        super().__init__(base, tilt, reach)

    @property
    def network(self) -> Logits:
        """The logits of the tilt."""
        assert isinstance(self.tilt, JointNetwork)
        return self.tilt.logits

    def scores(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return g, shape (n, n_classes)."""
        g: Tensor = self.network(self.seen(x))
        return g


class JointPatterns(JointEnergy):
    """The density of stored patterns with the labels of a network.

    E(x) = -log q(x), normalised whatever the network says, and
    s_y(x) = a log (exp(b_y(x)) / q(x)) + v_y'x + u_y + g_y(x), with b_y and
    q = sum_y exp(b_y) of `ClassPatterns`, and v and u fixed: zero until `start_at`.

    Parameters
    ----------
    patterns : ClassPatterns
        Patterns, stored.
    backbone : FeatureEnergy or None, default=None
        Whose features the logits read beside the row itself; None: g is linear.

    Attributes
    ----------
    trust : Parameter of shape ()
        a: neighbours in many columns are surer than they should be.
    slope, intercept : Tensor of shape (n_classes, d), Tensor of shape (n_classes,)
        v and u.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.
    .. [2] Parzen (1962), On estimation of a probability density function and mode,
       Annals of Mathematical Statistics 33(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ClassPatterns, JointPatterns
    >>> rows = torch.tensor([[0.0], [4.0]])
    >>> patterns = ClassPatterns(bandwidth=1.0).store(rows, torch.eye(2))
    >>> energy = JointPatterns(patterns).build(1)
    >>> energy.log_proba(rows).exp().detach().round(decimals=2)
    tensor([[0.9200, 0.0800],
            [0.0800, 0.9200]])
    """

    logits: Logits
    trust: nn.Parameter
    slope: Tensor
    intercept: Tensor

    def __init__(
        self, patterns: ClassPatterns, backbone: FeatureEnergy | None = None
    ) -> None:
        super().__init__()
        self.patterns = patterns
        self.backbone = backbone

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the layers; the logits start at zero."""
        self.logits = Logits(self.backbone, self.patterns.log_weights.shape[1])
        self.logits.build(n_features, generator=generator)
        self.trust = nn.Parameter(torch.full_like(self.logits.temperature, 0.3))
        weight = self.logits.last.weight.detach()
        self.register_buffer("slope", torch.zeros_like(weight[:, :n_features]))
        self.register_buffer("intercept", torch.zeros_like(weight[:, 0]))
        return self

    def start_at(self, slope: Tensor, intercept: Tensor, trust: float) -> None:
        """Set v and u, and the a at which training starts.

        Parameters
        ----------
        slope : Tensor of shape (n_classes, d)
            v.
        intercept : Tensor of shape (n_classes,)
            u.
        trust : float
            a.
        """
        self.slope.copy_(slope)
        self.intercept.copy_(intercept)
        self.trust.data.fill_(trust)

    @property
    def network(self) -> Logits:
        """The logits."""
        return self.logits

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x) = -log q(x), shape (n,)."""
        e: Tensor = self.patterns(x)
        return e

    def scores(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Return s, shape (n, n_classes)."""
        b = self.patterns.log_joint(x) if given is None else given
        return self._voted(x, b)

    def _energy_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and s from one pass over the patterns."""
        b = self.patterns.log_joint(x)
        return -b.logsumexp(1), self._voted(x, b)

    def _voted(self, x: Tensor, b: Tensor) -> Tensor:
        """Return s from log p(x, y)."""
        known = self.trust * b.log_softmax(1) + x @ self.slope.T + self.intercept
        s: Tensor = known + self.logits(x)
        return s

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return that of the patterns."""
        return self.patterns.log_partition(temperature)


class OfLabel(Energy):
    """-log p(y | x) of one label as an energy of x.

    Added to the energy E(x) it gives E(x, y), and so p(x | y) up to a constant.

    Parameters
    ----------
    part : JointEnergy
        Built.
    place : int
        The place of y among the classes.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import JointNetwork, OfLabel
    >>> round(OfLabel(JointNetwork().build(1), 0)(torch.zeros(1, 1)).item(), 4)  # log 2
    0.6931
    """

    def __init__(self, part: JointEnergy, place: int) -> None:
        super().__init__()
        self.part = part
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        """Return -log p(y | x), shape (n,)."""
        return -self.part.log_proba(x)[:, self.place]
