"""Reads a page of OpenMetrics from standard input with the reference parser (Debian: python3-prometheus-client), and prints one line
for each exemplar: its metric and its trace. Ends with an error where the parser finds one."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = list(text_string_to_metric_families(sys.stdin.read()))
print("families", len(families))
for family in families:
    for sample in family.samples:
        if sample.exemplar:
            print("exemplar", sample.name, sample.exemplar.labels["trace_id"])
