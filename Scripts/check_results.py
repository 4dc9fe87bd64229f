"""Says what results of commands (`--json`) hold that their schemas don't allow, and what is wrong with the schemas themselves.

    Scripts/check_results.py FOLDER [SCHEMA] < RESULTS

FOLDER holds NAME.schema.json for each command; RESULTS are the commands' last lines of standard output, one a line. With SCHEMA, such
as glora.metrics/1, they are lines of a file of that schema, which don't name it.
"""

import json
import sys
from pathlib import Path

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
except ImportError:
    sys.exit("check_results: Python has no jsonschema; run Scripts/setup, which installs python3-jsonschema.")


def loose(schema, path):
    """Where a schema leaves open what an object may hold, or doesn't say what a value is."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from loose(part, f"{path}/{index}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield f"{path} needs additionalProperties"
        for name, value in schema.get("properties", {}).items():
            if not value.get("description"):
                yield f"{path}/properties/{name} needs a description"
        for name, part in schema.items():
            yield from loose(part, f"{path}/{name}")


wrong = []
schemas = {}
for file in sorted(Path(sys.argv[1]).glob("*.schema.json")):
    schema = json.loads(file.read_text())
    name = schema["title"]
    schemas[name] = schema
    if name.rpartition("/")[0] != "glora." + file.name.removesuffix(".schema.json"):
        wrong.append(f"{file.name} has the title {name}")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        wrong.append(f"{file.name}: {error.message}")
    wrong += [f"{file.name}: {reason}" for reason in loose(schema, "#")]
for line in sys.stdin:
    result = json.loads(line)
    name = ("schema", sys.argv[2]) if len(sys.argv) > 2 else next(iter(result.items()))
    if name[0] != "schema" or name[1] not in schemas:
        wrong.append(f"a result begins with {name}, which no schema in {sys.argv[1]} describes")
        continue
    for error in Draft202012Validator(schemas[name[1]]).iter_errors(result):
        reasons = [error, *error.context]
        wrong += [f"{name[1]}, {reason.json_path}: {reason.message[:300]}" for reason in reasons]
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(bool(wrong))
