"""Each check is seen to pass, and to fail where what it looks for is broken: `python3 -m unittest test_checks` in this folder."""

import dataclasses
import unittest

import checks
from program import Page
from tally import Tally

PAGE = """# TYPE attache_requests_total counter
attache_requests_total{{listener="web",route="",upstream="app",protocol="http1",code="2xx",reason=""}} {good}
attache_requests_total{{listener="web",route="",upstream="app",protocol="http1",code="5xx",reason="{reason}"}} {failed}
attache_requests_total{{listener="web",route="",upstream="app",protocol="http1",code="2xx",reason="idle-timeout"}} {cut}
# TYPE attache_requests_in_flight gauge
attache_requests_in_flight{{listener="web",protocol="http1"}} {running}
# TYPE attache_upstream_endpoints gauge
attache_upstream_endpoints{{upstream="app",state="healthy"}} {healthy}
# TYPE process_open_fds gauge
process_open_fds 77
# TYPE attache_panics_total counter
attache_panics_total {panics}
"""


def page(good=0, failed=0, cut=0, reason="connect-timeout", running=0, healthy=4, panics=0):
    return Page(PAGE.format(**locals()))


def observed(**change):
    tally = Tally()
    tally.answers.update({("2xx", ""): 90, ("5xx", "connect-timeout"): 2})
    tally.cut = 3
    sound = checks.Observed(
        before=page(good=10), after=page(good=100, failed=2, cut=3), tally=tally, memory=(20000, 25000), descriptors=(20, 21),
        recovery=0.1, permits=128, permits_expected=128, errors=[], reasons=frozenset({"connect-timeout", "idle-timeout"}),
        needs=frozenset({"idle-timeout"}), expected_errors=("access log",),
    )
    return dataclasses.replace(sound, **change)


def tally(**change):
    changed = observed().tally
    for name, value in change.items():
        setattr(changed, name, value)
    return changed


# What is broken, and which check must say it.
BROKEN = [
    (checks.gauges, {"after": page(good=100, failed=2, cut=3, running=1)}),
    (checks.gauges, {"after": page(good=100, failed=2, cut=3, healthy=3)}),
    (checks.memory, {"memory": (20000, 60000)}),
    (checks.descriptors, {"descriptors": (20, 30)}),
    (checks.counters, {"after": page(good=99, failed=2, cut=3)}),
    (checks.counters, {"after": page(good=101, failed=2, cut=3)}),
    (checks.counters, {"after": page(good=100, failed=1, cut=3)}),
    (checks.counters, {"tally": tally(cut=2)}),
    (checks.counters, {"tally": tally(aborted=1)}),
    (checks.reasons, {"after": page(good=100, failed=2, cut=3, reason="internal-error")}),
    (checks.reasons, {"after": page(good=100, failed=2, cut=3, reason="")}),
    (checks.reasons, {"needs": frozenset({"upstream-reset"})}),
    (checks.unanswered, {"tally": tally(unanswered=1)}),
    (checks.unanswered, {"tally": tally(late=1)}),
    (checks.panics, {"after": page(good=100, failed=2, cut=3, panics=1)}),
    (checks.log, {"errors": ["ERROR something is wrong"]}),
    (checks.recovery, {"recovery": None}),
    (checks.recovery, {"recovery": 5.5}),
    (checks.permits, {"permits": 127}),
]


class Checks(unittest.TestCase):
    def test_nothing_differs_where_all_is_sound(self):
        self.assertEqual(checks.differences(observed()), [])
        self.assertEqual(checks.differences(observed(errors=["ERROR the access log can't be written"])), [])

    def test_each_check_says_what_is_broken(self):
        for check, change in BROKEN:
            with self.subTest(check=check.__name__, change=list(change)):
                self.assertNotEqual(list(check(observed(**change))), [])

    def test_no_check_is_without_a_failure(self):
        self.assertEqual({check for check, _ in BROKEN}, set(checks.CHECKS))


if __name__ == "__main__":
    unittest.main()
