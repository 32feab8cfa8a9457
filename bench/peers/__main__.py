"""``python -m bench.peers``: see :mod:`bench.peers_run`."""

import sys

from bench.peers_run import main

sys.exit(main())
