#!/usr/bin/env python3
"""Builds ocellus in several ways, runs its tests, and counts them.

    run_tests.py [--jobs N] [--all] [--only STEP]... [--list]

Every step runs even when an earlier one failed. The output of what failed is printed whole; the very last line is
"N passed, M failed" or "N passed, M failed, K skipped", and the exit code is not 0 when anything failed. A test is a
case that a test program reports in the style of cmocka ("[       OK ] name"); a program that reports no cases counts as
one test, and so does a build.
"""
import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Not repeated under ASan by `make test`: goldens compare whole forward passes, kernels.check does every shape of every
# kernel, parity does long corpora; all are too slow there, and the code is run under ASan by other tests too. house.*
# and eval.* are scripts.
# e2e.serve_load and _clients are about figures and about others' code, _queue mostly waits, what _tls does the unit tests of
# TLS do too. `make test-all` runs them under ASan too.
ASAN_SKIPS = r"^((golden|kernels|parity|eval|house)\.|e2e\.serve_(load|clients|queue|tls)$)"
# Under ThreadSanitizer only what starts threads.
TSAN_TESTS = r"^(unit\.(base\.test_pool|engine|kernels)|kernels|e2e\.(threads|model|serve_(chat|stream|images|queue)))"

# The server's tests have a short version for `make test` and a long one: faults 20 times each, five minutes of load,
# a thousand requests (tests/e2e/server_harness.py).
LONG_ENV = {"OCELLUS_LONG": "1", "OCELLUS_FAULT_N": "20", "OCELLUS_LOAD_S": "300"}

CASE = re.compile(r"^\[ +(OK|PASSED|FAILED|SKIPPED) +\] (\S+)$", re.M)


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def fail(self, name, output, n=1):
        self.failed += n
        self.failures.append(name)
        print(f"---- FAILED: {name} " + "-" * max(4, 90 - len(name)))
        print(output.rstrip())
        print("-" * 106, flush=True)


def say(text):
    print(text, flush=True)


def run(command, env=None, timeout_s=4 * 3600):
    """Returns (exit code, output with stderr)."""
    full_env = dict(os.environ, **(env or {}))
    try:
        p = subprocess.run(command, cwd=ROOT, env=full_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=timeout_s)
        return p.returncode, p.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as e:
        return 124, (e.stdout or b"").decode("utf-8", "replace") + f"\nstopped after {timeout_s} s"
    except OSError as e:
        return 127, str(e)


def build(tally, preset, jobs, target=None):
    """Configures and builds a preset; True when it worked."""
    start = time.monotonic()
    code, output = run(["cmake", "--preset", preset, "--log-level=NOTICE"])
    if code == 0:
        command = ["cmake", "--build", "--preset", preset, "-j", str(jobs)]
        code, output = run(command + (["--target", target] if target else []))
    if code != 0:
        tally.fail(f"build.{preset}", output)
        return False
    tally.passed += 1
    say(f"build.{preset}: ok, {time.monotonic() - start:.0f} s")
    return True


def count_cases(output):
    """(passed, failed, skipped) cases in a test program's output, by their lines in cmocka's style."""
    seen = {"OK": set(), "FAILED": set(), "SKIPPED": set()}
    for state, name in CASE.findall(output):
        if state in seen:
            seen[state].add(name)
    return len(seen["OK"] - seen["FAILED"]), len(seen["FAILED"]), len(seen["SKIPPED"])


def count_test(tally, case):
    """Adds one ctest test from the JUnit report."""
    name, status = case.get("name"), case.get("status")
    out = case.find("system-out")
    output = out.text if out is not None and out.text else ""
    ok, failed, skipped = count_cases(output)
    if status == "run":
        tally.skipped += skipped
        tally.passed += ok if ok + skipped else 1
        if failed:
            tally.fail(name, output + "\n(the program's exit code was 0 although cases failed)", failed)
    elif status in ("notrun", "disabled"):
        tally.skipped += 1
    else:
        tally.passed += ok
        tally.skipped += skipped
        message = case.find("failure")
        why = message.get("message", "") if message is not None else ""
        tally.fail(name, f"{output}\n{why}".strip() or "no output", max(1, failed))


def ctest(tally, preset, jobs, only=None, exclude=None, env=None):
    """Runs the tests of a build folder."""
    folder = os.path.join(ROOT, "build", preset)
    report = os.path.join(folder, "junit.xml")
    if os.path.exists(report):
        os.remove(report)
    command = ["ctest", "--test-dir", folder, "--output-junit", report, "-j", str(jobs), "--timeout", "600",
               "--test-output-size-passed", "4000000", "--test-output-size-failed", "4000000"]
    command += ["-R", only] if only else []
    command += ["-E", exclude] if exclude else []
    start = time.monotonic()
    before = tally.passed, tally.failed
    code, output = run(command, env)
    if not os.path.exists(report):
        tally.fail(f"ctest.{preset}", output)
        return
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    for case in cases:
        count_test(tally, case)
    if code != 0 and tally.failed == before[1]:
        tally.fail(f"ctest.{preset}", output)
    if not cases:
        tally.fail(f"ctest.{preset}", "no tests were found")
    say(f"ctest.{preset}: {len(cases)} programs, {tally.passed - before[0]} passed, {tally.failed - before[1]} "
        f"failed, {time.monotonic() - start:.0f} s")


SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:check_initialization_order=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:suppressions=" + os.path.join(ROOT, "tests", "tsan.suppressions"),
}


def step_release(tally, args):
    if build(tally, "release", args.jobs):
        ctest(tally, "release", args.jobs, env=LONG_ENV if args.all else None)


def step_asan(tally, args):
    if build(tally, "asan", args.jobs):
        ctest(tally, "asan", args.jobs, exclude=None if args.all else ASAN_SKIPS, env=SANITIZER_ENV)


def step_clang(tally, args):
    build(tally, "clang", args.jobs)


def step_tsan(tally, args):
    if build(tally, "tsan", args.jobs):
        ctest(tally, "tsan", args.jobs, only=TSAN_TESTS, env=SANITIZER_ENV)


def step_valgrind(tally, args):
    """`ocellus run` without AVX-512, which this valgrind does not know."""
    code, output = run(["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
                        "--errors-for-leak-kinds=definite,indirect,possible", "--error-exitcode=99",
                        "build/release/ocellus", "run", "--isa", "ref", "--threads", "1", "--max-tokens", "2",
                        "--image-max-tokens", "16", "-i", "examples/architecture.png", "What?"])
    if code != 0:
        tally.fail("valgrind.run", output)
    else:
        tally.passed += 1
        say("valgrind.run: ok")


def step_aarch64(tally, args):
    """The kernels for aarch64 under qemu, as several CPUs."""
    start = time.monotonic()
    folder = os.path.join(ROOT, "build", "aarch64")
    code, output = run(["sh", "tests/kernels/aarch64.sh", folder, str(args.jobs)])
    passed, failed, _ = count_cases(output)
    tally.passed += passed
    if code != 0 or failed or not passed:
        tally.fail("aarch64", output, max(1, failed))
    say(f"aarch64: {passed} passed, {failed} failed, {time.monotonic() - start:.0f} s")


def step_fuzz(tally, args):
    code, output = run([sys.executable, "tools/run_fuzz.py", "--jobs", str(args.jobs), "--seconds", "600"],
                       timeout_s=8 * 3600)
    if code != 0:
        tally.fail("fuzz", output)
    else:
        tally.passed += 1
        say("fuzz: ok")


STEPS = [("release", step_release, False), ("asan", step_asan, False),
         ("clang", step_clang, False), ("tsan", step_tsan, True), ("valgrind", step_valgrind, True),
         ("aarch64", step_aarch64, True), ("fuzz", step_fuzz, True)]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    p.add_argument("--all", action="store_true", help="also what is slow")
    p.add_argument("--only", action="append", metavar="STEP", help="run this step; may be repeated")
    p.add_argument("--list", action="store_true", help="name the steps")
    args = p.parse_args()
    names = [name for name, _, slow in STEPS]
    if args.list:
        print("\n".join(names))
        return 0
    for name in args.only or []:
        if name not in names:
            p.error(f"no step {name}; the steps are {', '.join(names)}")
    tally = Tally()
    start = time.monotonic()
    for name, fn, slow in STEPS:
        if name in args.only if args.only else (args.all or not slow):
            fn(tally, args)
    if tally.failures:
        say("failed: " + ", ".join(tally.failures))
    say(f"{time.monotonic() - start:.0f} s in all")
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    say(f"{tally.passed} passed, {tally.failed} failed{skipped}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
