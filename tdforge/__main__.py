"""`python -m tdforge`: the same as the command `tdforge`."""

import sys

from tdforge.cli import main

sys.exit(main())
