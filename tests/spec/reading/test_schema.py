import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from labelmill.spec import json_schema

JOBS = Path(__file__).parents[3] / "jobs"


def test_the_copy_for_editors_is_fresh():
    assert json.loads((JOBS / "labelmill.schema.json").read_text()) == json_schema(), "run: make schema"


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_schema_accepts_the_jobs(job):
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(yaml.safe_load(job.read_text()), json_schema())


def test_the_schema_refuses_what_the_loader_refuses_and_accepts_variables():
    spec = yaml.safe_load((JOBS / "serve.yaml").read_text())
    jsonschema.validate(spec | {"port": "${PORT}", "engine": "${ENGINE:-auto}"}, json_schema())
    for change in ({"port": 0}, {"port": "web"}, {"enigne": "auto"}, {"engine": "fast"}, {"name": "My Job"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spec | change, json_schema())


def test_every_field_has_a_description():
    parts = json_schema()["$defs"]
    for name, part in parts.items():
        assert part["description"], name
        for field, schema in part["properties"].items():
            refers = schema.get("$ref", "").removeprefix("#/$defs/") in parts
            assert refers or schema.get("description"), f"{name}.{field}"
