"""values.py SCHEMA VALUES…: says of each file whether Helm would take it, by the chart's schema; the end is 1 if one is refused."""

import json
import sys

import jsonschema
import yaml

schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
wrong = [
    f"{file}: {'.'.join(map(str, error.path))}: {error.message}"
    for file in sys.argv[2:]
    for error in jsonschema.Draft7Validator(schema).iter_errors(yaml.safe_load(open(file)))
]
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
