"""The subscriptions that a message matches, found among many, beside other libraries: see router_cases.hpp."""

import re

from groups.figures import run

FILTERS = (1, 4, 100, 10_000, 100_000)
# Lookups of a run, by case and number of filters.
CASES = {
    **{(case, n): 300_000 for case in ("exact", "plus", "hash", "mixed") for n in FILTERS},
    **{(case, n): 100_000 for case in ("deep_32", "deep_128") for n in (1, 100_000)},
    ("plus_anywhere", 100_000): 100,
    ("every_plus", 100_000): 20,
    ("long_level", 100_000): 20,
}
# Where instructions and cache misses are counted: what is built first takes its time.
COUNTED = {
    **{("mixed", n): 10_000 for n in FILTERS},
    **{(case, n): 10_000 for case in ("exact", "plus", "hash") for n in (4, 100_000)},
    **{(case, n): 2_000 for case in ("deep_32", "deep_128") for n in (1, 100_000)},
    ("plus_anywhere", 100_000): 20,
    ("every_plus", 100_000): 2,
    ("long_level", 100_000): 2,
}
# The same caches wherever it runs; the larger one is a small machine's.
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64")
WHO = {"runnel": "router", "libmosquitto": "router_mosquitto", "async_mqtt": "router_async_mqtt"}


def lookups(who, case, n, options):
    wanted = CASES[case, n] // options.divide
    if who == "libmosquitto":  # which looks at all filters
        wanted = min(wanted, 2_000_000 // n)
    return max(1, wanted)


def count(figures, program, case, n):
    times = COUNTED[case, n]
    command = ["valgrind", "--tool=callgrind", "--cache-sim=yes", *CACHES, "--toggle-collect=*counted_lookups*",
               "--callgrind-out-file=/dev/null", program, case, str(n), str(times)]
    done = run(figures, command, f"router/{case}_{n} under valgrind")
    found = re.search(r"Collected : ([\d ]+)", done.stderr) if done else None
    if found is None:
        return
    counts = [int(c) / (times + 1) for c in found.group(1).split()]  # one warms up
    counts += [0] * (9 - len(counts))  # zeros at the end are left out
    instructions, _, _, _, read, written, _, read_last, written_last = counts
    for unit, value in (("instructions", instructions), ("D1 misses", read + written), ("LL misses", read_last + written_last)):
        figures.add(f"router/{case}_{n}", "runnel", unit + "/lookup", value)


def router(figures, programs, options):
    for who, name in WHO.items():
        if name not in programs:
            continue
        figures.expect("router", who)
        for case, n in CASES:
            if who == "async_mqtt" and case == "long_level":  # seconds a lookup
                continue
            for _ in range(options.runs):
                done = run(figures, [programs[name], case, str(n), str(lookups(who, case, n, options))],
                           f"router/{case}_{n} by {who}")
                if done:
                    figures.add_lines(done.stdout)
    for case, n in COUNTED if options.valgrind else []:
        count(figures, programs["router"], case, n)
