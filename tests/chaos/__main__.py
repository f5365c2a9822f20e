"""Faults, under load, and what must hold afterwards: `python3 tests/chaos ATTACHE [CASE ...]`, `--help` says the rest.

One line a case: name, seconds, calls, failed by reason, verdict. The exit code is 1 where something differs. See docs/testing.md.
"""

import argparse
import asyncio
import concurrent.futures
import os
import random
import sys

import alone
import case_clients  # noqa: F401 (registers its cases, as the others do)
import case_endpoints  # noqa: F401
import case_lifecycle  # noqa: F401
import case_network  # noqa: F401
import case_resources  # noqa: F401
import case_soak
from world import CASES, play


def main():
    parser = argparse.ArgumentParser(prog="chaos", description="Faults under load, and what must hold afterwards.")
    parser.add_argument("attache", help="the program")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--minutes", type=float, help="how long the soak takes (0.2)", default=0.2)
    parser.add_argument("--seconds", type=float, help="how long each fault lasts (4)", default=4)
    parser.add_argument("--seed", type=int, help="of what is random in the load", default=1)
    parser.add_argument("--jobs", type=int, help="how many cases run at once (1)", default=1)
    parser.add_argument("--fast", action="store_true", help="the short form")
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    given = parser.parse_args()
    if given.list:
        print("\n".join(case.name + (" (fast)" if case.fast else "") for case in CASES))
        return 0
    unknown = set(given.cases) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))} (--list names them)")
    if alone.is_alone():
        return one(given)
    chosen = [case for case in CASES if case.name in given.cases or not given.cases and (case.fast or not given.fast)]
    more = [f"--minutes={given.minutes}", f"--seconds={given.seconds}", f"--seed={given.seed}"]
    # Each in namespaces and a process of its own: nothing is left for the next.
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        codes = pool.map(lambda case: alone.run([given.attache, case.name, *more]), chosen)
        bad = [case.name for case, code in zip(chosen, codes) if code]
    print(f"{len(chosen) - len(bad)} of {len(chosen)} cases hold", *bad)
    return 1 if bad else 0


def one(given):
    alone.prepare()
    random.seed(given.seed)
    case_soak.MINUTES = given.minutes
    (case,) = (case for case in CASES if case.name == given.cases[0])
    line, found = asyncio.run(play(case, os.path.abspath(given.attache), given.seconds))
    print(line, *(f"    {difference}" for difference in found), sep="\n", flush=True)
    return 1 if found else 0


sys.exit(main())
