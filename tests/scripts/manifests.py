"""Holds manifests to the Kubernetes schemas, and takes the attache configs out of them.

manifests.py OUT FILE…: every object of every file is validated strictly (an unknown field is an error); every ConfigMap's `attache.yaml` is
written to OUT/FILE.NAME.yaml. Prints what is wrong; the end is 1 if anything is.
"""

import pathlib
import sys

import kubernetes_validate
import yaml

# Native sidecars came with 1.29; the newest the package knows.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
OTHERS = ("cert-manager.io/", "monitoring.coreos.com/")


class Strict(yaml.SafeLoader):
    """A key that stands twice is an error, as for the API server."""


def mapping(loader, node, deep=False):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)

out, objects, wrong = pathlib.Path(sys.argv[1]), 0, []
for file in sys.argv[2:]:
    for index, thing in enumerate(yaml.load_all(open(file), Strict)):
        if thing is None:
            continue
        objects += 1
        name = f"{file}: {thing.get('kind')} {thing.get('metadata', {}).get('name')}"
        # Kinds of others, which Kubernetes has no schema for.
        if str(thing.get("apiVersion")).startswith(OTHERS):
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{name}: {version}: {'.'.join(map(str, error.path))}: {error.message}")
        if thing.get("kind") == "ConfigMap":
            for key, text in thing.get("data", {}).items():
                if key == "attache.yaml":
                    place = f"{pathlib.Path(file).parent.name}.{pathlib.Path(file).stem}.{index}.yaml"
                    (out / place).write_text(text)
print("\n".join(wrong) or f"{objects} objects are valid for {' and '.join(VERSIONS)}")
sys.exit(bool(wrong))
