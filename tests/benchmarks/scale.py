"""Does a label job's cost grow with the number of pictures, and with nothing else?

    python tests/benchmarks/scale.py PICTURES --train-folder FOLDER --count 1000

Runs `labelmill run` over --count pictures, ten times and a hundred times as many, and reports for each the whole job's
rate, the steady rate, CPU-seconds per 1,000 pictures and peak memory.
"""

from account import bars, command, machine, write_json, write_plot
from labelling import Labelling, add_arguments, parser_for
from pace import rate_between


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="pictures of the shortest run (default: %(default)s)")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100], help="default: 1 10 100")
    arguments = add_arguments(parser).parse_args()
    labelling = Labelling.prepare(arguments)
    runs = []
    for times in arguments.times:
        found = labelling.run(arguments.count * times)
        found["steady_pictures_per_s"] = round(rate_between(found.pop("finished"), 0.2, 0.9), 1)
        runs.append(found)
        results = {
            "benchmark": "scale",
            "command": command(),
            "machine": machine(),
            "architecture": arguments.architecture,
            "object_store_mib": arguments.object_store_mib,
            "runs": runs,
        }
        write_json(arguments.results / "scale.json", results)
    named = {f"{run['pictures']:,} pictures": run for run in runs}
    panels = [
        bars("pictures a second, whole job", {name: run["pictures_per_s"] for name, run in named.items()}),
        bars("pictures a second, steady", {name: run["steady_pictures_per_s"] for name, run in named.items()}),
        bars("CPU-seconds per 1,000 pictures", {name: run["cpu_s_per_1000"] for name, run in named.items()}),
        bars("peak memory, MiB", {name: run["peak_memory_bytes"] / 2**20 for name, run in named.items()}),
    ]
    write_plot(arguments.results / "scale.svg", panels)
    print("| pictures | wall, s | pictures/s, whole job | pictures/s, steady | CPU-s per 1,000 | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        print(
            f"| {run['pictures']:,} | {run['wall_s']:.1f} | {run['pictures_per_s']:.1f} "
            f"| {run['steady_pictures_per_s']:.1f} | {run['cpu_s_per_1000']:.2f} "
            f"| {run['peak_memory_bytes'] / 2**20:.0f} |"
        )


if __name__ == "__main__":
    main()
