"""The runtime specification's JSON schemas, as published (tests/specs/runtime-spec), for what a runtime prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

SPECS = Path(__file__).resolve().parents[1] / "specs/runtime-spec"


def problems(schema: str, document: Any) -> list[str]:
    """What is wrong with the document, one line each; `schema` is `config`, `features` or `state`."""
    known = {
        path.name: Resource.from_contents(json.loads(path.read_text()), DRAFT4) for path in sorted(SPECS.glob("*.json"))
    }
    registry: Registry[Any] = Registry().with_resources(known.items())
    validator = Draft4Validator(known[f"{schema}-schema.json"].contents, registry=registry)
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]
