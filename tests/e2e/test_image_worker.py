"""`ocellus image-worker` as the server starts it: its jail, its answers, its ends."""
import glob
import os
import signal
import socket
import subprocess
import sys
import time

from harness import BIN, ROOT, Skip, case, environment, main, ocellus, png
from roles import LAUNCH, LOOK, SEEN, SHUTDOWN, UNSEEN, Channel, Ended, Role, memfd, put_look, read_error, read_seen

RULES = {"kind": 1, "patch": 14, "merge": 2, "temporal": 2, "resample": 3, "max_tokens": 1024, "min_pixels": 3136,
         "max_pixels": 1003520, "rescale": 1 / 255, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def look(role, data, ident=1, **limits):
    """The answer to one picture: (type, what it says)."""
    fd = memfd(data, seals=0)
    role.channel.send(LOOK, ident, put_look(RULES, **limits), [fd])
    os.close(fd)
    kind, got, payload, fds = role.channel.receive()
    assert got == ident
    if kind == UNSEEN:
        assert not fds
        return kind, read_error(payload)
    assert kind == SEEN and len(fds) == 1
    seen = read_seen(payload)
    plan = seen["plan"]
    assert os.fstat(fds[0]).st_size == plan.width * plan.height * 3
    os.close(fds[0])
    return kind, seen


def a_png(width=100, height=60):
    with open(png("a.png", width, height, lambda x, y: (x % 256, y % 256, (x * y) % 256)), "rb") as f:
        return f.read()


def status_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f)


def limits_of(pid):
    with open(f"/proc/{pid}/limits") as f:
        return {line[:26].strip(): line[26:].split()[:2] for line in f.readlines()[1:]}


@case
def it_looks_at_pictures():
    role = Role("image-worker")
    data = a_png()
    kind, seen = look(role, data)
    assert kind == SEEN and (seen["width"], seen["height"]) == (100, 60)
    plan = seen["plan"]
    assert (plan.width, plan.height, plan.n_patches, plan.patch_dim, plan.n_tokens) == (112, 56, 32, 1176, 8), vars(plan)
    assert look(role, data, 2)[1]["digest"] == seen["digest"]
    assert look(role, a_png(101), 3)[1]["digest"] != seen["digest"]
    role.end()


@case
def the_jail_is_closed():
    role = Role("image-worker")
    assert look(role, a_png())[0] == SEEN
    if not role.is_jailed():
        raise Skip("this build has a sanitizer, which the jail leaves out")
    pid = role.process.pid
    status, limits = status_of(pid), limits_of(pid)
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and status["Threads"] == "1", status
    assert limits["Max core file size"] == ["0", "0"], limits
    assert limits["Max open files"] == ["16", "16"], limits
    assert limits["Max file size"] == [str(1 << 27)] * 2, limits
    space = int(limits["Max address space"][1])
    assert 3 << 30 < space < 16 << 30, space
    if os.geteuid() == 0:  # it is not dumpable: only root may look
        for _ in range(100):  # it closes the picture after its answer
            fds = sorted(os.listdir(f"/proc/{pid}/fd"))
            if fds == ["0", "1", "2", "3"]:
                break
            time.sleep(0.01)
        else:
            raise AssertionError([(n, os.readlink(f"/proc/{pid}/fd/{n}")) for n in fds])
    role.end()


@case
def hostile_files_cost_nothing_but_an_answer():
    role = Role("image-worker")
    n_seen = n = 0
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "fuzz", "corpus", "*", "*"))):
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as f:
            data = f.read()
        for piece in (data, data[:len(data) // 2], data + data, data[1:]):
            n += 1
            n_seen += look(role, piece, n)[0] == SEEN
    assert n_seen > 60 and n - n_seen > 200, (n_seen, n)
    role.end()


@case
def pictures_over_a_limit_are_refused():
    role = Role("image-worker")
    data = a_png()
    for limits, words in (({"max_bytes": len(data) - 1}, "bytes"), ({"max_side": 99}, "99 pixels a side"), ({"max_pixels": 5999}, "5999 pixels")):
        kind, (err, message) = look(role, data, **limits)
        assert kind == UNSEEN and err == 6 and words in message, (kind, err, message)
    assert look(role, data, max_bytes=len(data), max_side=100, max_pixels=6000)[0] == SEEN
    assert look(role, data, max_tokens=4)[1]["plan"].n_tokens <= 4
    role.end()


@case
def it_ends_as_it_should():
    role = Role("image-worker")
    role.channel.send(SHUTDOWN)
    assert role.wait() == 0 and role.said() == ""
    role.close()
    role = Role("image-worker")
    role.channel.sock.sendall(b"\xff" * 16)  # no frame
    assert role.wait() == 1
    assert "image-worker: " in role.said()
    role.close()
    role = Role("image-worker", "--parent", "1")  # somebody else
    assert role.wait() == 0
    role.close()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's signals are the server's affair
        role = Role("image-worker")
        assert look(role, a_png())[0] == SEEN
        role.process.send_signal(number)
        assert look(role, a_png())[0] == SEEN
        role.end()


@case
def it_dies_with_its_parent():
    """The parent is killed while its end of the socket stays open elsewhere."""
    ours, theirs = socket.socketpair()
    code = "import subprocess, sys, time\np = subprocess.Popen(sys.argv[1:], pass_fds=[int(sys.argv[4])])\nprint(p.pid, flush=True)\ntime.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", code, sys.executable, "-c", LAUNCH, str(theirs.fileno()), BIN, "image-worker"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment())
    child = int(parent.stdout.readline())
    theirs.close()

    class Adopted:
        channel = Channel(ours)

    assert look(Adopted, a_png())[0] == SEEN
    parent.kill()
    parent.wait()
    try:
        Adopted.channel.receive()
        raise AssertionError("a message without a question")
    except Ended:
        pass
    for _ in range(1000):
        if not os.path.exists(f"/proc/{child}") or status_of(child)["State"].startswith("Z"):
            break
        time.sleep(0.01)
    else:
        raise AssertionError("it lives on")
    Adopted.channel.close()
    parent.stdout.close()


@case
def it_is_not_for_people():
    r = ocellus("--help")
    assert "worker" not in r.out, r
    for args in (("help", "image-worker"), ("image-worker", "--help"), ("help", "worker")):
        r = ocellus(*args)
        assert r.code == 0 and "ocellus serve" in r.out, r
    r = ocellus("image-worker", "--jail", "x")
    assert r.code == 2 and "--jail" in r.err, r
    r = ocellus("image-worker", "x")
    assert r.code == 2 and "'x'" in r.err, r


if __name__ == "__main__":
    main()
