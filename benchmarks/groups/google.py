"""Programs that speak Google Benchmark's JSON."""

import json
import os

from groups.figures import run


def google(figures, program, runs, who_and_case, unit):
    command = [program, "--benchmark_format=json", f"--benchmark_repetitions={runs}", "--benchmark_min_time=0.05"]
    done = run(figures, command, os.path.basename(program))
    if not done:
        return
    # A program may print more behind the JSON.
    for b in json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{"):])[0]["benchmarks"]:
        known = who_and_case(b["name"].removesuffix("_median").removesuffix("_mean"))
        if b["run_type"] == "iteration" and known:
            figures.add(known[1], known[0], unit, b["cpu_time"] * {"ns": 1, "us": 1e3, "ms": 1e6}[b["time_unit"]])
