"""Programs that speak Google Benchmark's JSON."""

import json
import os

from groups.figures import run

NANOSECONDS = {"ns": 1, "us": 1e3, "ms": 1e6}


def google(figures, program, options, who_and_case, unit, counter=None):
    """`who_and_case` tells the library and the case of a benchmark's name; or None. The unit is of CPU time, or GB/s."""
    command = [program, "--benchmark_format=json", f"--benchmark_repetitions={options.runs}",
               f"--benchmark_min_time={0.05 / options.divide}", "--benchmark_enable_random_interleaving=true"]
    done = run(figures, command, os.path.basename(program))
    for b in json.loads(done.stdout)["benchmarks"] if done else []:
        known = who_and_case(b["run_name"])
        if b["run_type"] != "iteration" or not known:
            continue
        if b.get("error_occurred"):
            figures.failures.append(f"{b['run_name']}: {b['error_message']}")
            continue
        who, case = known
        gigabytes = unit == "GB/s"
        value = b["bytes_per_second"] / 1e9 if gigabytes else b["cpu_time"] * NANOSECONDS[b["time_unit"]]
        figures.add(case, who, unit, value)
        if counter:
            figures.add(case, who, counter, b[counter])
