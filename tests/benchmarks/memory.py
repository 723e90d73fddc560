"""Does a label job's memory stay flat, and its rate steady, when there are ten times as many pictures?

    python tests/benchmarks/memory.py PICTURES --train-folder FOLDER --count 10000 --times 10

Runs `labelmill run` over --count pictures and over --times as many, with Ray's object store at one size, and reports
the peak memory of the whole process tree (sum of proportional set sizes, shared memory included) and, of the longer
run, the rate of the last tenth of the pictures against the first tenth after warm-up (the pictures from 5% to 15%).
"""

from typing import Any

from account import bars, command, machine, write_json, write_plot
from labelling import Labelling, add_arguments, parser_for
from pace import rate_between

_WARM_UP = 0.05


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="pictures of the shorter run (default: %(default)s)")
    parser.add_argument("--times", type=int, default=10, help="as many in the longer one (default: %(default)s)")
    arguments = add_arguments(parser).parse_args()
    labelling = Labelling.prepare(arguments)
    short, long = labelling.run(arguments.count), labelling.run(arguments.count * arguments.times)
    first = rate_between(long["finished"], _WARM_UP, _WARM_UP + 0.1)
    last = rate_between(long["finished"], 0.9, 1.0)
    results: dict[str, Any] = {
        "benchmark": "memory",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "object_store_mib": arguments.object_store_mib,
        "memory_ratio": round(long["peak_memory_bytes"] / short["peak_memory_bytes"], 3),
        "rate_of_first_tenth": round(first, 1),
        "rate_of_last_tenth": round(last, 1),
        "rate_ratio": round(last / first, 3),
        "rates_by_tenth": [round(rate_between(long["finished"], n / 10, (n + 1) / 10), 1) for n in range(10)],
        "runs": [short, long],
    }
    write_json(arguments.results / "memory.json", results)
    peaks = {f"{run['pictures']:,} pictures": run["peak_memory_bytes"] / 2**20 for run in (short, long)}
    rates = {f"tenth {number + 1}": rate for number, rate in enumerate(results["rates_by_tenth"])}
    panels = [bars("peak memory, MiB", peaks), bars("pictures a second, tenth by tenth", rates)]
    write_plot(arguments.results / "memory.svg", panels)
    print("| pictures | peak memory, MiB | pictures/s, whole job |\n|---|---|---|")
    for run in (short, long):
        print(f"| {run['pictures']:,} | {run['peak_memory_bytes'] / 2**20:.0f} | {run['pictures_per_s']:.1f} |")
    print(f"\n- memory_ratio: {results['memory_ratio']}\n- rate_ratio: {results['rate_ratio']}")


if __name__ == "__main__":
    main()
