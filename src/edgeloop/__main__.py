"""`python -m edgeloop` is the `edgeloop` command."""

import sys

from edgeloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
