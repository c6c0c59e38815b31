"""Ctrl-C, readers that leave, full disks."""
import json
import os
import signal
import subprocess
import time

from harness import BIN, TIMEOUT_S, case, environment, main, model_args

LONG = ("--ignore-eos", "--temperature", "1.5", "--seed", "1")


def start(*args, stdout=subprocess.PIPE):
    return subprocess.Popen([BIN, "run", *model_args(), *args], stdin=subprocess.DEVNULL, stdout=stdout,
                            stderr=subprocess.PIPE, env=environment())


def finish(p):
    out, err = p.communicate(timeout=TIMEOUT_S)
    return out, err.decode("utf-8", "replace")


@case
def the_answer_comes_as_it_is_made():
    p = start(*LONG, "--max-tokens", "200", "Tell me a long story.")
    times = []
    while os.read(p.stdout.fileno(), 65536):
        times.append(time.monotonic())
    finish(p)
    assert p.returncode == 0
    assert len(times) > 20, f"only {len(times)} writes"
    assert times[-1] - times[0] > 0.02


@case
def ctrl_c_ends_cleanly():
    for number in (signal.SIGINT, signal.SIGTERM):
        p = start(*LONG, "--stats", "Tell me a long story.")
        first = os.read(p.stdout.fileno(), 1)
        p.send_signal(number)
        began = time.monotonic()
        out, err = finish(p)
        assert p.returncode == 130, (p.returncode, err)
        assert time.monotonic() - began < 20
        assert (first + out).endswith(b"\n") and "TTFT" in err, (out, err)


@case
def ctrl_c_leaves_whole_json():
    p = start(*LONG, "--json", "Tell me a long story.")
    time.sleep(1.5)
    p.send_signal(signal.SIGINT)
    out, err = finish(p)
    assert p.returncode == 130, (p.returncode, err)
    if out:  # nothing when it came before the model was there
        answer = json.loads(out)
        assert answer["choices"][0]["finish_reason"] == "abort"


@case
def a_full_disk_is_one_sentence():
    for args in (["--max-tokens", "8"], ["--max-tokens", "8", "--json"]):
        with open("/dev/full", "w") as full:
            p = start(*args, "Hello", stdout=full)
            _, err = finish(p)
        assert p.returncode == 1, (args, p.returncode, err)
        assert err.startswith("ocellus: ") and "No space left" in err and err.count("\n") == 1, err
    for args in (["--help"], ["--version"], ["help", "run"], ["inspect", *model_args()[1:]]):
        with open("/dev/full", "w") as full:
            p = subprocess.run([BIN, *args], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=TIMEOUT_S)
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1, (args, p)


@case
def a_reader_that_leaves_stops_it_quietly():
    p = start(*LONG, "Tell me a long story.")
    os.read(p.stdout.fileno(), 1)
    p.stdout.close()
    p.wait(timeout=TIMEOUT_S)
    err = p.stderr.read().decode()
    assert p.returncode == 1 and err == "", (p.returncode, err)


@case
def a_closed_stdout_is_an_error():
    p = subprocess.run(["sh", "-c", '"$0" "$@" >&-', BIN, "run", *model_args(), "--max-tokens", "4", "Hello"],
                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(), timeout=TIMEOUT_S)
    assert p.returncode == 1 and p.stderr.startswith(b"ocellus: "), p


if __name__ == "__main__":
    main()
