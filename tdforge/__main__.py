"""What does `python -m tdforge` do? The same as the command `tdforge`."""

import sys

from tdforge.cli import main

sys.exit(main())
