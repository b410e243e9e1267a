"""`python -m tests.cluster`: have the control plane's programs and Helm ready, and print where they are.

Called before pytest, so that the minutes of the first build count in no test's timeout and are seen to pass. With
`node` as first word, a real node for people; root is needed, and Debian's packages are installed if they are missing:

    python -m tests.cluster node up                        a cluster, until Ctrl-C; prints how to use it
    python -m tests.cluster node images [IMAGE...]         build stt, operator and gateway; load them if a node runs
    python -m tests.cluster node load NAME...              load images that `node images` or Buildah's store has
    python -m tests.cluster node down                      remove what a node left that was killed
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

from images.build import MEMBER_OF, BuildError, Plan, build_images, table
from tests.cluster.binaries import BinariesUnavailable, find_binaries
from tests.cluster.clients import find_helm
from tests.cluster.control_plane import PartEnded
from tests.cluster.machine import NodeUnavailable, prepare_machine
from tests.cluster.node import clean_up, load_image, node_runs, running_node
from tests.cluster.node_images import engine, make_base_image


def main() -> int:
    """0 when what was asked for is done, 1 with the reason on stderr when it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(dest="subject", metavar="node")
    actions = subjects.add_parser("node").add_subparsers(dest="action", required=True)
    actions.add_parser("up")
    actions.add_parser("down")
    actions.add_parser("images").add_argument("images", nargs="*", metavar="IMAGE")
    actions.add_parser("load").add_argument("images", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    try:
        match arguments.subject, getattr(arguments, "action", None):
            case "node", "up":
                _up()
            case "node", "down":
                clean_up()
            case "node", "images":
                _images(tuple(arguments.images) or tuple(MEMBER_OF))
            case "node", "load":
                for name in arguments.images:
                    load_image(name)
            case _:
                sys.stdout.write(f"{find_binaries().location}\n{find_helm()}\n")
    except (BinariesUnavailable, BuildError, NodeUnavailable, PartEnded, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _up() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="everwarm-node-")) / "cluster"
    with running_node(folder) as node:
        sys.stderr.write(
            f"ready after {time.monotonic() - began:.1f} s; logs are in {folder}; Ctrl-C ends it\n"
        )
        sys.stdout.write(f"export KUBECONFIG={node.kubeconfig}\n")
        sys.stdout.flush()
        threading.Event().wait()


def _images(images: tuple[str, ...]) -> None:
    prepare_machine()
    plan = Plan(images=images, python_image=make_base_image())
    sys.stdout.write(table(build_images(engine(), plan)) + "\n")
    if node_runs():
        for image in images:
            load_image(plan.name(image))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
