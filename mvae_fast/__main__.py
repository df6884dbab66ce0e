"""``python -m mvae_fast``: the ``mvae-fast`` command, also where its script is not on the path."""

import sys

from mvae_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
