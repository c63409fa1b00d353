"""What a user asks of ``skebm detect``, and what is refused before any work."""

from dataclasses import dataclass

from skebm._torch import resolve_device
from skebm.table import InputError


@dataclass(frozen=True)
class Settings:
    """How to look for anomalies.

    Parameters
    ----------
    ignore : tuple of str, default=()
        Columns that the energy does not see.
    novelty : bool, default=False
        Whether all training rows are taken to be ordinary; implied by ``clean``.
    contamination : float or None, default=None
        Share of the training rows above the threshold, in (0, 0.5]; None lets the
        detector choose one that aims at 5% false alarms on ordinary rows.
    fdr : float or None, default=None
        Bound on the expected share of false alarms among the flagged rows, in (0, 1).
        It needs ``clean`` or ``novelty``, and excludes ``contamination``.
    seed : int, default=0
        Seed of the detector.
    device : str, default="auto"
        Device of the detector.
    clean : bool, default=False
        Whether the training rows are a second table, of ordinary rows.
    """

    ignore: tuple[str, ...] = ()
    novelty: bool = False
    contamination: float | None = None
    fdr: float | None = None
    seed: int = 0
    device: str = "auto"
    clean: bool = False

    @property
    def all_ordinary(self):
        """Return whether all training rows are taken to be ordinary.

        Returns
        -------
        bool
            True with ``novelty`` or ``clean``.
        """
        return self.novelty or self.clean

    def check(self):
        """Refuse values out of range.

        Raises
        ------
        InputError
            If a value is out of range, or two of them exclude each other.
        """
        if self.contamination is not None and not 0 < self.contamination <= 0.5:
            raise InputError(
                f"--contamination is a share in (0, 0.5]; got {self.contamination:g}"
            )
        if self.fdr is not None and not 0 < self.fdr < 1:
            raise InputError(f"--fdr is a share in (0, 1); got {self.fdr:g}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed is an integer in [0, 2**32); got {self.seed}")
        self._check_together()
        try:
            resolve_device(self.device)
        except (RuntimeError, ValueError) as error:
            message = f"--device {self.device} cannot be used: {error}"
            raise InputError(message) from error

    def _check_together(self):
        """Refuse settings that exclude each other."""
        if self.fdr is None:
            return
        if self.contamination is not None:
            raise InputError("give either --contamination or --fdr, not both")
        if not self.all_ordinary:
            raise InputError(
                "--fdr needs ordinary rows to compare with: a table that is its own "
                "reference has no false discovery control; give them with --clean "
                "CLEAN.csv, or flag a share of the rows with --contamination"
            )
