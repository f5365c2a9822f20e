"""schema.py SCHEMA FILE…: says of each config file, a line each, `ok` or what the JSON schema refuses.

YAML is read as an editor reads it: version 1.2, where only `true` and `false` are truth values, and `!file PATH` is the text PATH.
"""

import json
import re
import sys

import jsonschema
import yaml


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}


for tag, pattern, first in [
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
]:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
Loader.add_constructor("!file", lambda loader, node: loader.construct_scalar(node))

schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for file in sys.argv[2:]:
    error = next(iter(validator.iter_errors(yaml.load(open(file), Loader))), None)
    where = "" if error is None else f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    print(where.replace("\n", " ")[:200] or "ok")
