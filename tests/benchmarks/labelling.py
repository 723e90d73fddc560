"""Label jobs of different sizes over the same pictures and model, accounted for: what memory.py and scale.py share."""

import argparse
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from field.contenders import Labelmill, Python, contender_environment
from field.trial import Trial
from measuring import measure
from store import many_pictures, unique_pictures

__all__ = ["Labelling", "add_arguments", "parser_for"]


@dataclass(frozen=True)
class Labelling:
    work: Path
    model: Path
    unique: list[Path]
    object_store_mib: int

    @classmethod
    def prepare(cls, arguments: argparse.Namespace) -> "Labelling":
        from trained import trained_network

        work = arguments.work.resolve()
        model = trained_network(
            work / "models", arguments.architecture, arguments.train_folder, arguments.epochs, arguments.train_pictures
        )
        return cls(work, model, unique_pictures(arguments.pictures, work), arguments.object_store_mib)

    def run(self, count: int, checkout: Path | None = None, **settings: Any) -> dict[str, Any]:
        """One job over `count` pictures, from nothing, by the labelmill of another checkout if one is given.
        `settings` are fields of the spec; `finished` is (second of the run, pictures finished then)."""
        folder = self.work / "runs" / f"labelling-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store = many_pictures(self.unique, count, self.work)
        trial = Trial(str(store), str(self.model), str(folder / "output"), str(folder), 0, count, settings)
        contender = Labelmill("labelmill", "labelmill")
        command = contender.command(trial, folder / "spec.yaml", Python())
        # Ray takes a share of the machine's memory for its object store unless told otherwise.
        object_store = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(self.object_store_mib * 2**20)}
        environment = contender_environment(self.model, checkout) | object_store
        cost = measure(command, environment, folder / "log.txt")
        costs = asdict(cost)
        del costs["cpu_curve"]
        finished = [(at - cost.started_at, number) for at, number in contender.finished(trial)]
        labelled = sum(number for _, number in finished)
        if labelled != count:
            raise SystemExit(f"expected {count:,} rows in {trial.output}, got {labelled:,}")
        return {
            "pictures": count,
            "pictures_per_s": round(count / cost.wall_s, 1),
            "cpu_s_per_1000": round(1000 * cost.cpu_s / count, 3),
            **costs,
            "finished": [(round(at, 2), number) for at, number in finished],
        }


def parser_for(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of pictures, repeated by links to as many as wanted")
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What all benchmarks of label jobs take."""
    parser.add_argument("--train-folder", type=Path, required=True, help="a folder of pictures for each label")
    parser.add_argument("--architecture", default="timm/mobilenetv3_small_100", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"), help="for pictures, model and outputs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="default: beside this")
    parser.add_argument("--epochs", type=int, default=12, help="of training (default: %(default)s)")
    parser.add_argument("--train-pictures", type=int, default=10_000, help="at most (default: %(default)s)")
    parser.add_argument("--object-store-mib", type=int, default=512, help="of Ray's object store (default: 512)")
    return parser
