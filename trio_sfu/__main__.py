"""The command: ``trio-sfu``, or ``python -m trio_sfu``."""

import os
import sys

import trio

from trio_sfu import config, server


def main() -> None:
    """Parse, serve, and exit: 0 after a signal, 1 where the server cannot start, 2 for a bad command line."""
    configuration = config.parse(sys.argv[1:], os.environ)
    server.configure_logging(configuration.log_level)
    try:
        trio.run(server.run, configuration)
    except server.CannotStart as error:
        print(f"trio-sfu: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        pass  # before the signal handler was in place


if __name__ == "__main__":
    main()
