"""Wait until a Ray cluster has as many nodes as it will have: a search counts what fits when it starts.

python launchers/cluster/wait_for_nodes.py --address auto --nodes 5
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout that is not installed

from pwfn.errors import UserError
from pwfn.sweep.address import NoAnswerError, check_address
from pwfn.sweep.cluster import connected, prepare_environment

PAUSE_SECONDS = 1.0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Wait until a Ray cluster has as many nodes as it will have.")
    parser.add_argument("--address", required=True, help="Ray cluster, as in ray.init")
    parser.add_argument("--nodes", type=int, required=True, help="nodes to wait for, the head included")
    return parser.parse_args()


def wait_for_head(address: str) -> None:
    """Return once a cluster answers; its head may still be starting. Say once that it does not answer yet.

    Raises:
        UserError: it is no address of a cluster.
    """
    said = False
    while True:
        try:
            return check_address(address)
        except NoAnswerError:
            if not said:
                print(f"waiting until Ray answers at {address}", flush=True)
                said = True
            time.sleep(PAUSE_SECONDS)


def wait(nodes: int) -> None:
    """Return once the cluster that is joined has that many living nodes; say how many it has whenever that changes."""
    import ray

    known = None
    while known is None or known < nodes:
        alive = sum(node["Alive"] for node in ray.nodes())
        if alive != known:
            print(f"{alive} of {nodes} Ray nodes", flush=True)
            known = alive
        time.sleep(0 if alive >= nodes else PAUSE_SECONDS)


def main() -> int:
    """Join, wait, leave."""
    arguments = parse()
    prepare_environment(local=False)
    try:
        wait_for_head(arguments.address)
        with connected(arguments.address, dashboard=False):
            wait(arguments.nodes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
