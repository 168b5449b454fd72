"""`python -m ftlab` is the `ftlab` command, for where scripts are not on the path."""

import sys

from ftlab.cli import main

sys.exit(main())
