"""same_webhook.py A B: the MutatingWebhookConfigurations of two files say the same; the end is 1 if not."""

import sys

import yaml


def webhooks(file):
    for thing in yaml.safe_load_all(open(file)):
        if thing and thing["kind"] == "MutatingWebhookConfiguration":
            annotations = thing["metadata"].get("annotations")
            return {"webhooks": thing["webhooks"], "annotations": annotations}
    sys.exit(f"{file} has none")


one, other = map(webhooks, sys.argv[1:])
if one != other:
    sys.exit(f"{one}\n{other}")
