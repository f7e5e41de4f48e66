"""`python -m cryohydra` is `drgnai`."""

import sys

from cryohydra.cli.main import main

sys.exit(main())
