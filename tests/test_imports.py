"""The design's first test: who may import whom. Imports inside functions count, those for type checkers do not."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE_ROOT = Path(__file__).parents[1] / "platform"
JOBS = Path(__file__).parents[1] / "jobs"

# A line imports only lines below it, and nothing beside it.
LAYERS = [
    ("__main__",),
    ("cli",),
    ("demo", "check", "terminal"),
    ("train", "label", "serve"),
    ("evaluate",),
    ("cluster", "dataset", "table"),
    ("model", "metrics", "page"),
    ("images", "unattended"),
    ("spec", "storage", "parquet", "machine"),
    ("address",),
    ("ahead", "allowance", "ending", "errors"),
    ("",),  # labelmill itself: its version
]
MAY_IMPORT_RAY = {"cluster", "train", "label", "serve"}
TORCH = {"torch", "torchvision", "timm"}
TORCH_FREE = [
    "labelmill.check",
    "labelmill.cli",
    "labelmill.dataset",
    "labelmill.errors",
    "labelmill.images",
    "labelmill.metrics",
    "labelmill.model.bundle",
    "labelmill.model.engines.openvino_engine",
    "labelmill.model.labeler",
    "labelmill.model.registry",
    "labelmill.page",
    "labelmill.spec",
    "labelmill.storage",
    "labelmill.table",
]
# Which engine it takes is decided when it is made: only then may torch come in.
MAY_IMPORT_TORCH_LATE = {"labelmill.model.labeler"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE_ROOT.rglob("*.py")):
        parts = path.relative_to(SOURCE_ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str, *, late: bool) -> frozenset[str]:
    """Dotted names that a module imports: when it is imported itself and, with `late`, inside its functions too."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(modules()[module].read_text("utf-8"))
    return frozenset(name for node in statements(tree, late=late) for name in imported(node, package))


def statements(tree: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from statements(ast.Module(node.orelse, []), late=late)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from statements(node, late=late)


def imported(node: ast.AST, package: str) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=name, names=names, level=level):
            above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            start = ".".join([*above, *([name] if name else [])])
            yield start
            yield from (f"{start}.{alias.name}" for alias in names if f"{start}.{alias.name}" in modules())
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"), args=[ast.Constant(value)]
        ):
            yield str(value)


def unit(module: str) -> str:
    """The part of the package that a module belongs to: `labelmill.spec.reading.load` is in `spec`."""
    return module.partition(".")[2].partition(".")[0]


def layer(module: str) -> int:
    return next(index for index, line in enumerate(LAYERS) if unit(module) in line)


def loaded_with(module: str) -> set[str]:
    """All modules of the package that importing one brings in, parents included."""
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        while name and name not in modules():  # a class or function: its module
            name = name.rpartition(".")[0]
        parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
        for each in {name, *parents} - seen - {""}:
            seen.add(each)
            queue += [target for target in imports(each, late=False) if target.split(".")[0] == "labelmill"]
    return seen


def test_every_module_has_a_place_in_the_layers():
    assert {unit(module) for module in modules()} <= {name for line in LAYERS for name in line}


def test_platform_is_no_package():
    assert not (SOURCE_ROOT / "__init__.py").exists(), "it would shadow the standard library's platform"


def test_a_module_imports_only_what_lies_below_it():
    wrong = [
        f"{module} imports {target}"
        for module in modules()
        for target in imports(module, late=True)
        if target.split(".")[0] == "labelmill" and unit(target) != unit(module) and layer(target) <= layer(module)
    ]
    assert not wrong


def rooms(package: str) -> dict[str, set[str]]:
    """The sub-packages of a package, and by which of them each is imported; modules of the package itself count too."""
    inside = [module for module in modules() if module.startswith(f"{package}.")]
    packages = {module for module in inside if modules()[module].name == "__init__.py"}

    def room(module: str) -> str:
        first = ".".join(module.split(".")[: package.count(".") + 2])
        return first if first in packages else module

    arrows: dict[str, set[str]] = {room(module): set() for module in inside}
    for module in inside:
        for target in imports(module, late=True):
            if target in inside and room(target) != room(module):
                arrows[room(module)].add(room(target))
    return arrows


@pytest.mark.parametrize("package", ["label", "train", "spec", "cli", "table", "storage"])
def test_the_rooms_of_a_package_do_not_import_one_another_in_a_circle(package: str):
    arrows = rooms(f"labelmill.{package}")
    while free := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows


def test_no_room_holds_more_than_a_newcomer_can_survey():
    counts = Counter(path.parent.relative_to(SOURCE_ROOT) for path in modules().values())
    assert {str(room): count for room, count in counts.items() if count > 16} == {}


def test_only_the_distributed_parts_import_ray():
    users = {unit(module) for module in modules() for name in imports(module, late=True) if name.split(".")[0] == "ray"}
    assert users <= MAY_IMPORT_RAY


def test_one_room_of_a_label_job_knows_ray_and_nothing_hands_out_work_but_ray_s_libraries():
    users = {module for module in modules() for name in imports(module, late=True) if name.split(".")[0] == "ray"}
    labelling = {module for module in users if unit(module) == "label"}
    assert {module.rpartition(".")[0] for module in labelling} == {"labelmill.label.spread"}
    calls = re.compile(r"\bray\.(wait|remote)\b|from ray import .*\b(wait|remote)\b")
    assert [module for module, path in modules().items() if calls.search(path.read_text("utf-8"))] == []


def test_parquet_is_read_in_no_way_that_leaves_threads_behind():
    """The interpreter aborts if it ends while they are at work."""
    bad = {"read_table", "read_pandas", "to_pyarrow_dataset", "to_pyarrow_table"}
    used = {
        (module, node.attr)
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in bad
    }
    used |= {
        (module, name)
        for module in modules()
        for name in imports(module, late=True)
        if name.startswith("pyarrow.dataset")
    }
    assert used == set()


@pytest.mark.parametrize("start", TORCH_FREE)
def test_torch_and_ray_stay_out_of(start):
    members = [module for module in modules() if module == start or module.startswith(f"{start}.")]
    assert members, f"{start} is gone: correct the list"
    for member in members:
        for module in loaded_with(member):
            late = module == member and member not in MAY_IMPORT_TORCH_LATE
            foreign = {name.split(".")[0] for name in imports(module, late=late)}
            assert not foreign & (TORCH | {"ray"}), f"{member} -> {module}"


def test_an_offline_check_imports_neither_torch_nor_ray():
    program = (
        "import json, sys\n"
        "from labelmill.cli import main\n"
        "sys.argv = ['labelmill', 'check', '--offline', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, str(JOBS / "label.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    heavy = {"torch", "torchvision", "timm", "ray", "openvino", "pyarrow", "numpy", "boto3", "rich"}
    assert not heavy & set(json.loads(done.stderr.splitlines()[-1]))
    assert "valid, label nightly" in done.stdout
