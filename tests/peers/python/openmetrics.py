"""Reads a page with the reference parser of OpenMetrics, which is strict; the page is in the argument."""
import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def main():
    asked = json.loads(sys.argv[1])
    families = {family.name: family for family in text_string_to_metric_families(asked["page"])}
    cases = {
        "counters are called by what they count": lambda: families["vestibule_requests"].type == "counter",
        "buckets add up": lambda: families["vestibule_request_duration_seconds"].type == "histogram",
        "the refusal is behind its count": lambda: asked["id"] in behind(families["vestibule_rejections"]),
    }
    print(f"1..{len(cases)}")
    for number, (name, holds) in enumerate(cases.items(), 1):
        print(f"{'ok' if holds() else 'not ok'} {number} - {name}")


def behind(family):
    exemplars = (sample.exemplar for sample in family.samples)
    return {exemplar.labels["request_id"] for exemplar in exemplars if exemplar}


if __name__ == "__main__":
    main()
