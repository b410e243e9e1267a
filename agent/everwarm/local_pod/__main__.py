"""The guardian's program: `python -m everwarm.local_pod FOLDER LOCK_FILE IDLE_S`, started by `LocalPod` alone.

LOCK_FILE is the number of the open file that holds the guardian's lock. The first thing it does is to fork and let the
parent end: its starter has no child to wait for, and the guardian does not end with its starter.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the guardian; the environment is its pod's."""
    folder, file, idle_s = sys.argv[1:]
    if os.fork():
        os._exit(0)

    from everwarm.local_pod.guardian import guard
    from everwarm.local_pod.place import Place
    from everwarm_core.logs import configure_logging

    configure_logging(json=True)
    place = Place(Path(folder))
    lock = place.guardian()
    lock.adopt(int(file))
    sys.exit(guard(place, lock, idle_s=float(idle_s)))


main()
