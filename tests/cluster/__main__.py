"""`python -m tests.cluster`: have the control plane's programs ready, and print where they are.

Called before pytest, so that the minutes of the first build count in no test's timeout and are seen to pass.
"""

import sys

from tests.cluster.binaries import BinariesUnavailable, find_binaries


def main() -> int:
    """Build if need be; 0 when the programs are there, 1 with the reason on stderr when they are not."""
    try:
        binaries = find_binaries()
    except BinariesUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{binaries.location}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
