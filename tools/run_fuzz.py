#!/usr/bin/env python3
"""Builds the fuzz targets with clang and runs each on its corpus for a while.

    run_fuzz.py [--jobs N] [--seconds S] [TARGET]...

A target is named without its "fuzz_". New inputs are kept in build/fuzz/corpus/, crashes in build/fuzz/crashes/; the
committed corpus under tests/fuzz/corpus/ is only read. Exit code 1 when a target crashed, leaked, hung or ran past 2 GB.
"""
import argparse
import glob
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build", "fuzz")


def fuzz(name, seconds):
    own = os.path.join(BUILD, "corpus", name)
    crashes = os.path.join(BUILD, "crashes", name)
    os.makedirs(own, exist_ok=True)
    os.makedirs(crashes, exist_ok=True)
    command = [os.path.join(BUILD, f"fuzz_{name}"), f"-max_total_time={seconds}", "-timeout=25", "-rss_limit_mb=2048",
               "-print_final_stats=1", f"-artifact_prefix={crashes}/", own,
               os.path.join(ROOT, "tests", "fuzz", "corpus", name)]
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = p.stdout.decode("utf-8", "replace")
    n_runs = next((l.split()[-1] for l in output.splitlines() if "number_of_executed_units" in l), "?")
    print(f"fuzz.{name}: " + (f"clean, {n_runs} inputs" if p.returncode == 0 else "FAILED"), flush=True)
    return name, p.returncode, output


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    p.add_argument("--seconds", type=int, default=600)
    p.add_argument("targets", nargs="*")
    args = p.parse_args()
    known = sorted(os.path.basename(f)[5:-2] for f in glob.glob(os.path.join(ROOT, "tests/fuzz/fuzz_*.c")))
    unknown = [t for t in args.targets if t not in known]
    if unknown:
        p.error(f"no target {unknown[0]}; the targets are {', '.join(known)}")
    targets = args.targets or known
    for command in (["cmake", "--preset", "fuzz", "--log-level=NOTICE"],
                    ["cmake", "--build", "--preset", "fuzz", "-j", str(args.jobs), "--target"] +
                    [f"fuzz_{t}" for t in targets]):
        if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode != 0:
            return 1
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda t: fuzz(t, args.seconds), targets))
    failed = [(name, output) for name, code, output in results if code != 0]
    for name, output in failed:
        print(f"---- fuzz.{name}\n" + "\n".join(output.splitlines()[-60:]))
    print(f"{len(results) - len(failed)} targets clean, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
