"""`python -m ld_hub` is the command `ld-hub`."""

import sys

from ld_hub.cli.main import main

sys.exit(main())
