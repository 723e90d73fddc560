"""A label job of this checkout beside the same job of another one, in turn, on one machine.

    git worktree add ../before COMMIT
    python tests/benchmarks/beside.py PICTURES --train-folder FOLDER --before ../before --count 4000 --rounds 5

Reports the medians of wall time, CPU-seconds of the whole process tree, peak memory and steady rate of both, and those
of what the two runs of a round differ by. The steady rate is that between a tenth and nine tenths of the pictures.
"""

import json
from pathlib import Path
from typing import Any

from account import command, compared, machine, write_json
from labelling import Labelling, add_arguments, parser_for
from pace import rate_between

_FIGURES = ("wall_s", "cpu_s", "peak_memory_bytes", "steady_pictures_per_s", "others_cpu_s", "stolen_cpu_s")


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--count", type=int, default=4000, help="pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of both (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of both (default: %(default)s)")
    arguments = add_arguments(parser).parse_args()
    labelling = Labelling.prepare(arguments)
    runs: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        both = [("before", arguments.before), ("now", None)]
        for name, checkout in reversed(both) if number % 2 else both:  # neither is always the first
            run = labelling.run(arguments.count, checkout, precision=arguments.precision)
            steady = round(rate_between(run.pop("finished"), 0.1, 0.9), 1)
            runs.append({"checkout": name, **run, "steady_pictures_per_s": steady})
            print(
                f"round {number + 1}, {name}: {run['wall_s']:.1f} s, {run['cpu_s']:.1f} CPU-s, steady {steady}/s, "
                f"{run['peak_memory_bytes'] / 2**20:.0f} MiB, others {run['others_cpu_s']:.1f} CPU-s",
                flush=True,
            )
    found = compared(runs, _FIGURES)
    results = {
        "benchmark": "beside",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "pictures": arguments.count,
        "compared": found,
        "runs": runs,
    }
    write_json(arguments.results / f"beside-{arguments.count}.json", results)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
