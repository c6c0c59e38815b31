"""Programs on a device that is not the host: a plug-in made of the CPU (tests/golden/fake_plugin.c) lies beside a copy of the
program. It is found, opened, filled and used as one for GPUs would be, and answers must be the CPU's bit for bit."""
import json
import os
import shutil
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUILT = os.path.abspath(os.environ.get("OCELLUS_BIN", os.path.join(HERE, "..", "..", "build", "release", "ocellus")))
PLUGIN = os.path.join(os.path.dirname(BUILT), "fake", "libocellus-cuda.so")
PLACE = tempfile.mkdtemp(prefix="ocellus-e2e-device-")
os.makedirs(os.path.join(PLACE, "bin"))
os.makedirs(os.path.join(PLACE, "lib", "ocellus"))
os.environ["OCELLUS_BIN"] = shutil.copy(BUILT, os.path.join(PLACE, "bin", "ocellus"))
BESIDE = shutil.copy(PLUGIN, os.path.join(PLACE, "bin", "libocellus-cuda.so"))
INSTALLED = os.path.join(PLACE, "lib", "ocellus", "libocellus-cuda.so")

from harness import TMP, environment, fails, model_args, ocellus, png, run, run_json  # noqa: E402
from server_harness import Server, case, data_url, image_part, main, user  # noqa: E402
from server_harness import picture as picture_bytes  # noqa: E402

SMALL = environment(FAKE_MEMORY_MIB="20")
ASK = ["-n", 12, "-t", 0, "--logprobs", 3]


def answer(*args, **kw):
    choice = run_json(*ASK, *args, **kw)["choices"][0]
    return choice["message"]["content"], choice["logprobs"]


def picture():
    return png("device.png", 120, 90, lambda x, y: (x * 2, y * 2, (x * y) % 256))


@case
def answers_are_the_cpus():
    for more in ([], ["-i", picture()]):
        cpu = answer("--device", "cpu", *more, "What is this?")
        assert answer("--device", "cuda", *more, "What is this?") == cpu
        assert answer("--device", "cuda:0", *more, "What is this?") == cpu
        assert answer(*more, "What is this?") == cpu


@case
def auto_takes_what_is_there_and_says_so():
    r = run("--stats", "-n", 2, "x")
    assert "device   cuda:0, a device that is not the host" in r.err, r
    r = run("--stats", "-n", 2, "--isa", "ref", "x")
    assert "device   cpu, since kernels of the CPU were asked for: ref" in r.err, r
    r = run("--stats", "-n", 2, "x", env=SMALL)
    assert "device   cpu, since the model takes" in r.err and "20 of its 20 MiB free" in r.err, r
    r = run("--stats", "-n", 2, "x", env=environment(FAKE_CARDS="0"))
    assert "device   cpu, since there is no card 0" in r.err, r


@case
def what_was_asked_for_by_name_is_an_error():
    m = model_args()
    fails(1, "MiB free", "run", "-n", 1, *m, "--device", "cuda", "x", env=SMALL)
    fails(1, "no card 7", "run", "-n", 1, *m, "--device", "cuda:7", "x")
    fails(2, "known: auto, cpu, cuda", "run", "-n", 1, *m, "--device", "gpu", "x")


@case
def the_plugin_is_looked_for_in_two_places():
    os.rename(BESIDE, INSTALLED)
    assert "device   cuda:0" in run("--stats", "-n", 2, "x").err
    os.rename(INSTALLED, BESIDE + ".away")
    assert "device   cpu, since libocellus-cuda.so lies neither" in run("--stats", "-n", 2, "x").err
    fails(1, "libocellus-cuda.so", "run", "-n", 1, *model_args(), "--device", "cuda", "x")
    with open(BESIDE, "wb") as f:
        f.write(b"no library")
    assert "device   cpu, since the plug-in cannot be loaded" in run("--stats", "-n", 2, "x").err
    os.replace(BESIDE + ".away", BESIDE)


@case
def inspect_says_what_a_device_holds():
    def look(*args, env=None):
        r = ocellus("inspect", "--json", *args, *([] if not model_args() else model_args()[1:]), env=env)
        assert r.code == 0, r
        return json.loads(r.out)
    cpu, there = look("--device", "cpu"), look()
    assert cpu["device"] == "cpu" and cpu["memory"]["device_bytes"] == 0, cpu
    assert there["device"] == "cuda:0" and there["device_name"] and there["device_why"] == "", there
    m = there["memory"]
    assert m["device_bytes"] >= m["weight_bytes"] + m["workspace_bytes"] and m["host_bytes"] > 0, there
    assert look(env=SMALL)["device_why"], look(env=SMALL)
    r = ocellus("inspect", *([] if not model_args() else model_args()[1:]))
    assert "device        cuda:0" in r.out and "of the host's beside them" in r.out, r


def serve(env=None, **options):
    """(answers, the worker's part of the status, the log)"""
    with Server(env=env, **options) as s:
        answers = [s.chat(temperature=0, max_tokens=12).ok().text,
                   s.chat(user(image_part(data_url(picture_bytes())), "What is this?"), temperature=0, max_tokens=12).ok().text]
        return answers, s.workers_status()[0], s.log()


@case
def a_server_answers_the_same():
    cpu, worker, log = serve(device="cpu")
    assert worker["device"] == "cpu" and worker["device_memory_gb"] == 0, worker
    there, worker, log = serve()
    assert there == cpu, (there, cpu)
    assert worker["device"] == "cuda:0" and worker["device_name"] and worker["device_memory_gb"] > 0, worker
    assert "cuda:0" in log, log
    small, worker, log = serve(env={"FAKE_MEMORY_MIB": "20"})
    assert small == cpu and worker["device"] == "cpu" and "MiB free" in worker["device_why"], worker


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)
