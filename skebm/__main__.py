"""``python -m skebm`` runs the command line."""

import sys

from skebm.cli import main

if __name__ == "__main__":
    sys.exit(main())
