"""Runs ``kontext-async`` as ``python -m kontext_async.cli``."""

import sys

from kontext_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
