"""What must hold after each case. Each check takes an observation and returns what differs, one line each."""

import collections
import dataclasses

# Gauges that may be anything, with the reason.
FREE = {
    "process_resident_memory_bytes": "memory has a check of its own",
    "process_open_fds": "descriptors have a check of their own",
    "process_max_fds": "a limit",
    "process_threads": "threads of the runtime come and go",
    "process_start_time_seconds": "a time",
    "attache_config_last_reload_success_timestamp_seconds": "a time",
    "attache_overload_pressure": "a share of memory and descriptors, which have checks of their own",
}
# Gauges of a state, not of what runs: as they were.
AS_BEFORE = {
    "attache_build_info", "attache_config_last_reload_successful", "attache_upstream_endpoints", "attache_upstream_circuit_state",
    "attache_tls_insecure_upstreams",
}
# How much memory may stay: the allocator keeps pages of what was in use.
MEMORY_KIB = 24 * 1024
DESCRIPTORS = 4
RECOVERY = 5.0


@dataclasses.dataclass
class Observed:
    """`before` and `after` are pages of metrics, `memory` and `descriptors` pairs of before and after."""

    before: object
    after: object
    tally: object
    memory: tuple
    descriptors: tuple
    recovery: float | None
    permits: int
    permits_expected: int
    errors: list
    reasons: frozenset
    needs: frozenset
    expected_errors: tuple = ()
    recovery_limit: float = RECOVERY


def gauges(seen):
    before = seen.before.gauges()
    for (name, labels), value in sorted(seen.after.gauges().items(), key=str):
        expected = before.get((name, labels), 0) if name in AS_BEFORE else 0
        if name not in FREE and value != expected:
            shown = ",".join("=".join(pair) for pair in sorted(labels))
            yield f"gauge {name}{{{shown}}} is {value:g}, not {expected:g}"


def memory(seen):
    before, after = seen.memory
    if after > before + MEMORY_KIB:
        yield f"memory is {after} KiB, {after - before} KiB above its base"


def descriptors(seen):
    before, after = seen.descriptors
    if after > before + DESCRIPTORS:
        yield f"{after} descriptors are open, {before} were before"


def ended(seen):
    """Requests that ended while the case ran, by class of the status and reason."""
    return seen.after.requests() - seen.before.requests()


def counters(seen):
    """The metrics have each answer that a client had, and no more than the clients' calls."""
    rest = collections.Counter(ended(seen))
    for key, count in seen.tally.answers.items():
        if rest[key] < count:
            yield f"clients had {count} answers {key}, the metrics have {rest[key]}"
        rest[key] -= min(count, rest[key])
    least = seen.tally.cut + seen.tally.aborted
    most = least + seen.tally.opaque + seen.tally.unanswered + seen.tally.late
    if not least <= sum(rest.values()) <= most:
        yield f"clients had {least} to {most} ends without a whole answer, the metrics have {dict(+rest)}"
    for (code, reason), count in rest.items():
        if count and not reason and seen.tally.cut == 0 and seen.tally.aborted == 0:
            yield f"the metrics have {count} good answers ({code}) that no client had"


def reasons(seen):
    found = collections.Counter()
    for (code, reason), count in ended(seen).items():
        if reason or code == "5xx":
            found[reason or "a 5xx of an endpoint"] += count
    for reason, count in found.items():
        if reason not in seen.reasons:
            yield f"{count} calls failed by {reason}, which is not of this fault"
    if seen.needs and not seen.needs & found.keys():
        yield f"no call failed by one of {sorted(seen.needs)}: the fault was not there"


def unanswered(seen):
    """Silence is no answer to a client that waits."""
    if seen.tally.unanswered:
        yield f"{seen.tally.unanswered} calls ended without a byte of an answer"
    if seen.tally.late:
        yield f"{seen.tally.late} calls had no end in time"


def panics(seen):
    if count := seen.after.total("attache_panics_total"):
        yield f"{count:g} panics"


def log(seen):
    for line in seen.errors:
        if not any(expected in line for expected in seen.expected_errors):
            yield f"unexpected in the log: {line[:200]}"


def recovery(seen):
    if seen.recovery is None or seen.recovery > seen.recovery_limit:
        yield f"no call succeeded within {seen.recovery_limit:g} s of the fault's end"


def permits(seen):
    """All places of the circuit breaker can be had at once: none is lost."""
    if seen.permits != seen.permits_expected:
        yield f"{seen.permits} of {seen.permits_expected} places of the circuit breaker could be had"


CHECKS = (gauges, memory, descriptors, counters, reasons, unanswered, panics, log, recovery, permits)


def differences(seen):
    return [line for check in CHECKS for line in check(seen)]
