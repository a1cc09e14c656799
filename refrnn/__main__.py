"""`python -m refrnn` is `refrnn`."""

import sys

from refrnn.cli import main

sys.exit(main())
