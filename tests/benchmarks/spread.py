"""A label job on two nodes of one core each beside the same on one node of two cores, in turn. As root, with iproute2.

    sudo python tests/benchmarks/spread.py PICTURES --train-folder FOLDER --count 3000 --rounds 3

Each node has a network namespace of its own; what they share is the machine. Reports the medians of the steady rates,
which the receipts say, and what the two of a round differ by.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the tests' nodes

from account import command, compared, machine, write_json
from labelling import Labelling, add_arguments, parser_for
from store import many_pictures

from nodes import Nodes

_FIGURES = ("steady_pictures_per_s", "wall_s", "cpu_s")
_CLUSTERS = {"before": (2,), "now": (1, 1)}  # cores of each node


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--count", type=int, default=3000, help="pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of both (default: %(default)s)")
    arguments = add_arguments(parser).parse_args()
    labelling = Labelling.prepare(arguments)
    store = many_pictures(labelling.unique, arguments.count, labelling.work)
    runs: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        for name in sorted(_CLUSTERS, reverse=bool(number % 2)):  # neither is always the first
            run = _run(labelling, store, _CLUSTERS[name])
            runs.append({"checkout": name, "cores_of_nodes": _CLUSTERS[name], **run})
            print(f"round {number + 1}, cores {_CLUSTERS[name]}: {run}", flush=True)
    results = {
        "benchmark": "spread",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "pictures": arguments.count,
        "one_node_is": "before",
        "two_nodes_are": "now",
        "compared": compared(runs, _FIGURES),
        "runs": runs,
    }
    write_json(arguments.results / "spread.json", results)
    print(json.dumps(results["compared"], indent=2))


def _run(labelling: Labelling, store: Path, cores: tuple[int, ...]) -> dict[str, Any]:
    folder = labelling.work / "runs" / "spread"
    subprocess.run(["rm", "-rf", folder], check=True)
    folder.mkdir(parents=True)
    spec = {"kind": "label", "name": "spread", "registry": str(labelling.model / "registry"), "model": "bench@1"}
    spec |= {"images": str(store), "output": str(folder / "labels"), "engine": "openvino", "precision": "float32"}
    (folder / "spec.json").write_text(json.dumps(spec))
    with Nodes() as nodes:
        for number, num_cpus in enumerate(cores):
            nodes.start(number, num_cpus=num_cpus)
        subprocess.run(
            [*nodes.on(0), sys.executable, "-m", "labelmill", "run", folder / "spec.json"],
            env={n: v for n, v in os.environ.items() if not n.startswith("RAY_")} | nodes.environ,
            check=True,
            capture_output=True,
        )
    [receipt] = [json.loads(path.read_text()) for path in (folder / "labels").glob("_labelmill/receipts/*.json")]
    return {name: receipt[name] for name in _FIGURES}


if __name__ == "__main__":
    main()
