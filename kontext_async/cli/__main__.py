"""``python -m kontext_async.cli`` is ``kontext-async``."""

import sys

from kontext_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
