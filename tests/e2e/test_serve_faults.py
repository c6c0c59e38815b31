"""ocellus serve: nothing takes it down. Each fault is made OCELLUS_FAULT_N times.

After each fault: a proper answer or error for every request, no orphan, no leaked memfd or descriptor, and the next
request works.
"""
import contextlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import time

from harness import TMP, Skip
from server_harness import (FAULT_N, SLOW, Server, Shared, ask, cache_model, case, check_error_object, data_url,
                            image_part, in_background, is_alive, joined, long_answer, main, picture, private_bytes,
                            request_bytes, rested, seconds, user, wait_until)

server = Shared(parallel=2)
serial = Shared(parallel=1)
# A picture that takes the encoder a while, and a prompt that takes the prefill a while.
WIDTH, WORDS = (1400, 500) if SLOW == 1 else (560, 100)
BIG = lambda i: user(image_part(data_url(picture(WIDTH, WIDTH * 4 // 5, i))), "What?")  # noqa: E731
LONG_PROMPT = lambda i: f"{i} " + "word after word " * WORDS  # noqa: E731


def settle(s):
    """The server after a fault: it answers, and holds what it held before."""
    a = s.chat("After the fault.", max_tokens=3, timeout=60)
    assert a.ok().json["usage"]["completion_tokens"] == 3
    s.wait_idle()
    wait_until(lambda: len(s.workers()) == len(s.workers_status()) == 1, 10,
               lambda: f"one worker: {s.workers()} {s.workers_status()}")


class Leaks:
    """Descriptors of the orchestrator before and after."""

    def __init__(self, s):
        settle(s)
        self.s = s
        self.before = rested(self.look)

    def look(self):
        return self.s.n_descriptors()[self.s.pid], self.s.memfds()[self.s.pid]

    def check(self):
        settle(self.s)
        wait_until(lambda: self.look() == self.before, 5,
                   lambda: f"descriptors and memfds {self.before} of before, now {self.look()}")
        assert self.s.alive() and not [p for p in self.s.seen if is_alive(p) and p not in self.s.children()]


def kill_worker(s, number=signal.SIGKILL):
    pid = s.one_worker()
    os.kill(pid, number)
    return pid


def proper(a):
    """A whole answer or a proper error."""
    if a.status == 200:
        assert a.json["choices"][0]["finish_reason"] in ("stop", "length"), a
        return True
    a.fails((500, 503))
    return False


def proper_stream(st, chunks):
    """The end of a stream: [DONE], or an error event and the end."""
    if st.finished:
        return True
    assert chunks and "error" in chunks[-1], f"neither [DONE] nor an error: {chunks[-1:]}"
    check_error_object(chunks[-1], chunks[-1])
    return False


# ---- The worker dies ---------------------------------------------------------------------------------------------

@case
def bb_104_a_killed_worker_is_noticed_at_once():
    """Item 104 wants health to say unhealthy; here liveness is the orchestrator's, the model shows as not loaded (or as
    loading again), and the next request works."""
    s = server()
    leaks = Leaks(s)
    for _ in range(FAULT_N):
        pid = kill_worker(s)
        wait_until(lambda: not any(w["pid"] == pid and w["state"] not in ("dead", "died") for w in s.workers_status()), 1,
                   "the death to show")
        s.get("/health").ok()
        leaks.check()
        assert s.workers() != [pid]
    assert s.metric("ocellus_worker_restarts_total") >= FAULT_N


@case
def worker_killed_while_a_request_is_queued():
    s = serial()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        st = s.stream("Tell me a long story.", max_tokens=3000, timeout=120)
        assert st.next_text()
        queued = in_background(lambda: s.chat(f"Queued {i}", max_tokens=5, timeout=120))
        wait_until(lambda: s.admin("/admin/queue").json["queue_depth"] == 1, 10, "the queue")
        kill_worker(s)
        chunks = st.rest()
        assert not proper_stream(st, chunks), "a stream that had begun cannot end well"
        assert queued().ok().json["usage"]["completion_tokens"] == 5
        leaks.check()


def killed_in(stage, messages, limit=4):
    """Kills the worker while it is in a stage of a request without answer text: the request is run again."""
    s = server()
    want = {}
    leaks = Leaks(s)
    hit = 0
    for i in range(FAULT_N):
        m = messages(1000 + i)
        answer = in_background(lambda: s.chat(m, max_tokens=limit, timeout=120))
        s.wait_doing(stage)
        kill_worker(s)
        a = answer(120)
        assert a.ok().json["usage"]["completion_tokens"] == limit, a
        hit += 1
        want[i] = a.text
        assert s.chat(m, max_tokens=limit).ok().text == a.text, "the second run gives the same text"
        leaks.check()
    assert hit == FAULT_N


@case
def worker_killed_in_encode():
    killed_in("encode", BIG)


@case
def worker_killed_in_prefill():
    killed_in("prefill", LONG_PROMPT)


@case
def worker_killed_in_decode_of_a_whole_answer():
    """No text has been sent of an answer that is not streamed, so it is run again."""
    s = server()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        want = s.chat(f"Decode {i}", max_tokens=60).ok().text
        answer = in_background(lambda: s.chat(f"Decode {i}", max_tokens=60, timeout=120))
        s.wait_doing("decode")
        kill_worker(s)
        assert answer(120).ok().text == want
        leaks.check()


@case
def worker_killed_before_the_first_text_of_a_stream():
    """A stop string that may have begun holds the text back: nothing is sent, and the stream is run again."""
    s = server()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        m = LONG_PROMPT(2000 + i)
        want = s.chat(m, max_tokens=30).ok().text
        m = LONG_PROMPT(3000 + i)
        opened = in_background(lambda: s.stream(m, max_tokens=30, timeout=120))
        s.wait_doing("prefill")
        kill_worker(s)
        st = opened(120)
        chunks = st.chunks()
        assert st.finished and not any("error" in c for c in chunks), chunks[-1:]
        assert joined(chunks) == s.chat(m, max_tokens=30).ok().text and want
        leaks.check()


@case
def bb_049_worker_killed_in_a_stream():
    """After text was sent: an SSE error event at once, and the end without [DONE]."""
    s = server()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        st = s.stream(f"Tell me a long story {i}.", max_tokens=3000, timeout=120)
        for _ in range(3):
            assert st.next_text()
        began = time.monotonic()
        kill_worker(s)
        chunks = st.rest()
        assert time.monotonic() - began < seconds(2), "the error waited for a timeout"
        assert not proper_stream(st, chunks)
        assert chunks[-1]["error"]["code"] == "worker_lost", chunks[-1]
        leaks.check()


@case
def worker_killed_at_any_time():
    """Streams and whole answers, kills at times drawn at random: everything ends properly."""
    s = server()
    leaks = Leaks(s)
    rng = random.Random(3)
    for i in range(3 * FAULT_N):
        jobs = [in_background(lambda: s.chat(user(image_part(data_url(picture(560, 560, 5000 + i))), "x"), max_tokens=20,
                                             timeout=120)),
                in_background(lambda: s.chat(LONG_PROMPT(i), max_tokens=20, timeout=120))]

        def stream():
            st = s.stream(f"Story {i}", max_tokens=60, timeout=120)
            return st, (st.chunks() if st.status == 200 else None)
        jobs.append(in_background(stream))
        time.sleep(rng.random() * 0.7)
        with contextlib.suppress(OSError):
            for pid in s.workers():
                os.kill(pid, signal.SIGKILL)
        for job in jobs[:2]:
            proper(job(120))
        st, chunks = jobs[2](120)
        if chunks is None:
            assert st.status in (500, 503)
        else:
            proper_stream(st, chunks)
        leaks.check()


@case
def a_picture_that_kills_the_worker_twice_is_refused():
    """By its digest, also in another request; other pictures go on."""
    s = server()
    settle(s)
    bad = BIG(7777)
    answer = in_background(lambda: s.chat(bad, max_tokens=2, timeout=120))
    s.wait_doing("encode")
    first = kill_worker(s)
    # The new worker at the same stage; the board of the dead one may still be shown for a moment.
    wait_until(lambda: any(w["pid"] != first and w["doing"] == "encode" for w in s.workers_status()), 30,
               lambda: f"a new worker that encodes: {s.workers_status()}", 0.002)
    os.kill(next(w["pid"] for w in s.workers_status() if w["pid"] != first), signal.SIGKILL)
    a = answer(120)
    a.fails((400, 500, 503))
    a = s.chat(bad, max_tokens=2, timeout=120)
    a.fails(400, param="messages[0].content[0].image_url")
    s.chat(BIG(7778), max_tokens=2, timeout=120).ok()
    settle(s)


@case
def bb_105_a_worker_that_is_terminated():
    """Item 105 wants exit code 0 or the signal's; seen from outside the process is gone within two seconds."""
    s = server()
    settle(s)
    pid = kill_worker(s, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), 2, "the worker to end")
    settle(s)


@case
def bb_111_a_hung_worker_is_killed():
    """No heartbeat for the stall time: it is killed, its request is run again, the server answers all the time."""
    with Server(stall_timeout=2) as s:
        leaks = Leaks(s)
        for i in range(FAULT_N):
            answer = in_background(lambda: s.chat(f"Hang {i}", max_tokens=400, timeout=120))
            s.wait_doing("decode")
            pid = s.one_worker()
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            for _ in range(5):
                s.get("/health", timeout=2).ok()
                s.admin("/admin/status", timeout=2).ok()
            wait_until(lambda: not is_alive(pid), 10, "the hung worker to be killed")
            assert time.monotonic() - began > 1
            assert answer(120).ok().json["usage"]["completion_tokens"] == 400
            leaks.check()
        assert s.metric("ocellus_worker_restarts_total", reason="stalled") == FAULT_N


@case
def a_worker_that_dies_while_it_loads():
    """Killed as soon as it appears: a proper answer or error, no endless restarting."""
    name = "test/dies"
    cache_model(name, 51)
    with Server(models=[name]) as s:
        for i in range(FAULT_N):
            answer = in_background(lambda: s.chat(f"Load {i}", max_tokens=2, timeout=120))
            kill_worker(s)
            proper(answer(120))
            s.admin("/admin/unload", "POST")
            wait_until(lambda: not s.workers(), 10, "no worker")
        s.chat(max_tokens=2).ok()


@case
def bb_120_a_kill_while_another_model_loads():
    names = ["test/one", "test/two"]
    for i, n in enumerate(names):
        cache_model(n, 61 + i)
    with Server(models=names) as s:
        s.chat(model=names[0], max_tokens=2).ok()
        for _ in range(FAULT_N):
            load = in_background(lambda: s.admin("/admin/load?model_path=" + names[1], "POST", timeout=60))
            for pid in s.workers()[:1]:
                os.kill(pid, signal.SIGKILL)
            proper_load = load(60)
            assert proper_load.status in (200, 500, 503), proper_load
            for n in names:
                s.chat(model=n, max_tokens=2, timeout=60).ok()
            s.admin("/admin/unload?model_path=" + names[1], "POST").ok()


# ---- The image-worker dies ---------------------------------------------------------------------------------------

@case
def image_workers_killed_while_they_wait():
    s = server()
    s.chat(BIG(1), max_tokens=1).ok()
    leaks = Leaks(s)
    n = len(s.image_workers())
    assert n >= 1
    for i in range(FAULT_N):
        for pid in s.image_workers():
            os.kill(pid, signal.SIGKILL)
        a = s.chat(user(image_part(data_url(picture(64, 64, 400 + i))), "x"), max_tokens=2)
        a.ok()
        wait_until(lambda: len(s.image_workers()) == n, 10, f"{n} image-workers again")
        leaks.check()


@case
def image_workers_killed_at_work():
    """The picture is looked at once more, or its request gets an error; the text of others flows on."""
    s = server()
    leaks = Leaks(s)
    rng = random.Random(9)
    for i in range(FAULT_N):
        st = s.stream("Tell me a long story.", max_tokens=1500, timeout=120)
        assert st.next_text()
        urls = [data_url(picture(3000, 2400, 9000 + 10 * i + k)) for k in range(2)]
        jobs = [in_background(lambda u=u: s.chat(user(image_part(u, detail="low"), "x"), max_tokens=2, timeout=120))
                for u in urls]
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for pid in s.image_workers():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(rng.random() * 0.2)
        for job in jobs:
            a = job(120)
            assert a.status in (200, 400, 500, 503), a
            if a.status != 200:
                a.fails(a.status)
        assert st.next_text(), "another's stream was cut"
        st.close()
        leaks.check()


@case
def a_hung_image_worker_costs_one_request():
    with Server(image_timeout=2, image_workers=1) as s:
        s.chat(BIG(1), max_tokens=1).ok()
        for i in range(FAULT_N):
            (pid,) = wait_until(s.image_workers, 10, "an image-worker")
            os.kill(pid, signal.SIGSTOP)
            a = s.chat(user(image_part(data_url(picture(64, 64, 600 + i))), "x"), max_tokens=2, timeout=60)
            if a.status != 200:
                a.fails((400, 500, 503))
            wait_until(lambda: not is_alive(pid), 10, "the hung image-worker to go")
            s.chat(user(image_part(data_url(picture(64, 64, 700 + i))), "x"), max_tokens=2).ok()


# ---- The orchestrator dies ---------------------------------------------------------------------------------------

@case
def bb_115_a_killed_orchestrator_leaves_nothing():
    """Its children end with it, and the next start in the same runtime directory works."""
    for i in range(FAULT_N):
        run_dir = os.path.join(TMP, f"killed{i}")
        s = Server(runtime_dir=run_dir)
        st = s.stream("Tell me a long story.", max_tokens=3000)
        assert st.next_text()
        children = s.children()
        assert len(children) >= 2
        s.expected_alive = False
        s.process.kill()
        s.process.wait()
        s.check_no_orphans(5)
        st.close()
        with Server(runtime_dir=run_dir) as again:
            again.chat(max_tokens=2).ok()
        left = [os.path.join(d, f) for d, _, files in os.walk(run_dir) for f in files]
        assert all(os.path.getsize(f) < 4096 for f in left), left


@case
def leftovers_of_a_killed_orchestrator_are_ended():
    """Children that were stopped cannot end by themselves at once; the next start sees to them."""
    run_dir = os.path.join(TMP, "leftover")
    s = Server(runtime_dir=run_dir)
    s.chat(max_tokens=2).ok()
    worker = s.one_worker()
    os.kill(worker, signal.SIGSTOP)
    s.expected_alive = False
    s.process.kill()
    s.process.wait()
    with Server(runtime_dir=run_dir) as again:
        again.chat(max_tokens=2).ok()
        wait_until(lambda: not is_alive(worker), 5, "the leftover to end")
    s.check_no_orphans()


@case
def several_instances_side_by_side():
    a, b = Server(), Server()
    try:
        assert a.chat("Same", max_tokens=4).ok().text == b.chat("Same", max_tokens=4).ok().text
        a.stop()
        b.chat(max_tokens=2).ok()
        b.stop()
    finally:
        a.kill()
        b.kill()


@case
def one_runtime_directory_serves_one_instance():
    """A second server in it must not end the first one's children."""
    s = Server()
    try:
        s.chat(max_tokens=2).ok()
        pid = s.one_worker()
        other = Server(runtime_dir=os.path.join(s.dir, "run"), wait=False)
        other.expected_alive = False
        try:
            wait_until(lambda: not other.alive() or answers(other), 15, "a refusal or a start")
            assert is_alive(pid) and s.workers() == [pid]
            s.chat(max_tokens=2).ok()
            if other.alive():
                other.stop()
            else:
                assert other.process.returncode not in (0, -11, -6), other.log()
        finally:
            other.kill()
    finally:
        s.stop()


def answers(s):
    try:
        return s.get("/health", timeout=2).status == 200
    except OSError:
        return False


# ---- Clients that misbehave --------------------------------------------------------------------------------------

def tear(c, reset):
    if reset:  # RST instead of FIN
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


@case
def torn_connections_at_each_stage():
    s = server()
    leaks = Leaks(s)
    big = request_bytes({**ask(BIG(4242)), "stream": True})
    for i in range(FAULT_N):
        for reset in (False, True):
            k = 10 * i + reset
            # in the head, in the body, right behind it
            for cut in (1, 20, 100, len(big) // 2, len(big) - 1, len(big)):
                c = s.connect()
                with contextlib.suppress(OSError):
                    c.sendall(big[:cut])
                tear(c, reset)
            # while a worker encodes, prefills, decodes
            for stage, body in (("encode", ask(BIG(5000 + k))), ("prefill", ask(LONG_PROMPT(6000 + k))),
                                ("decode", ask(f"Torn {k}", max_tokens=2000)),
                                ("decode", {**ask(f"Torn {k}", max_tokens=2000), "stream": True})):
                s.wait_idle()
                c = s.connect()
                c.sendall(request_bytes(body))
                s.wait_doing(stage)
                tear(c, reset)
                began = time.monotonic()
                s.wait_idle(5)
                assert time.monotonic() - began < seconds(3), f"cancelled late in {stage}"
    leaks.check()


@case
def torn_connections_in_the_queue():
    s = serial()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        st = s.stream("Tell me a long story.", max_tokens=3000)
        assert st.next_text()
        for reset in (False, True):
            c = s.connect()
            c.sendall(request_bytes(ask("In the queue")))
            wait_until(lambda: s.admin("/admin/queue").json["queue_depth"] == 1, 10, "the queue")
            tear(c, reset)
            wait_until(lambda: s.admin("/admin/queue").json["queue_depth"] == 0, 5, "the queue to be empty")
        st.close()
        leaks.check()


@case
def half_open_clients():
    """A client that sent its request and its FIN, and still reads: it has left, or it gets its answer; never a hang."""
    s = server()
    leaks = Leaks(s)
    for i in range(FAULT_N):
        c = s.connect(timeout=30)
        c.sendall(request_bytes(ask(f"Half {i}", max_tokens=5)))
        c.shutdown(socket.SHUT_WR)
        data = b""
        with contextlib.suppress(OSError):
            while more := c.recv(65536):
                data += more
        assert data == b"" or data.startswith(b"HTTP/1.1 200 "), data
        c.close()
        # and one that says nothing at all
        silent = [s.connect() for _ in range(20)]
        s.chat(max_tokens=1).ok()
        for c in silent:
            c.close()
    leaks.check()


@case
def slow_readers_are_cut_or_served():
    """Two streams that nobody reads: memory stays bounded, others are served."""
    s = server()
    leaks = Leaks(s)
    before = private_bytes(s.pid)
    slow = [s.slow_reader(long_answer()) for _ in range(2)]
    time.sleep(seconds(2))
    s.get("/health", timeout=2).ok()
    assert private_bytes(s.pid) - before < 64 * 2**20
    for c in slow:
        tear(c, True)
    leaks.check()


@case
def a_flood_of_garbage():
    s = server()
    leaks = Leaks(s)
    rng = random.Random(2)
    for _ in range(100 * FAULT_N):
        with s.connect() as c, contextlib.suppress(OSError):
            c.sendall(rng.randbytes(rng.randint(1, 2000)))
    leaks.check()


# ---- The machine misbehaves --------------------------------------------------------------------------------------

@case
def a_full_disk_for_logs():
    """The log may not grow: lines are lost, requests are not."""
    with Server(log_file="/dev/full") as s:
        for i in range(10 * FAULT_N):
            s.chat(f"{i}", max_tokens=1).ok()
        s.chat(user(image_part(data_url(picture())), "x"), max_tokens=1).ok()
        assert s.metric("ocellus_log_lines_lost_total") > 0


@case
def a_disk_that_fills_and_is_emptied():
    """A small file system: full while the server runs, then with room again, and the log goes on."""
    folder = os.path.join(TMP, "small")
    os.makedirs(folder)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    if mounted.returncode != 0:
        raise Skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        path, filler = os.path.join(folder, "log"), os.path.join(folder, "filler")
        with Server(log_file=path) as s:
            with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
                while f.write(b"x" * 512):
                    pass
            for i in range(100 * FAULT_N):
                s.chat(f"{i}", max_tokens=1).ok()
            full = os.path.getsize(path)
            os.remove(filler)
            for i in range(20):
                s.chat(f"{i}", max_tokens=1).ok()
            wait_until(lambda: os.path.getsize(path) > full, 5, "the log to go on")
    finally:
        subprocess.run(["umount", folder], check=True)


@case
def a_log_that_nobody_reads():
    """stderr is a pipe that fills: the server does not wait for it."""
    r, w = os.pipe()
    try:
        s = Server(log=f"/proc/{os.getpid()}/fd/{w}", wait=False, log_level="debug")
        s.log = lambda: ""
        s.wait_ready()
        for i in range(100 * FAULT_N):
            s.chat(f"{i}", max_tokens=1, timeout=30).ok()
        s.stop()
    finally:
        os.close(r)
        os.close(w)


@case
def a_worker_that_says_much():
    """Its stderr is drained (what hung the seed): 64 KiB of pipe are filled many times over."""
    with Server(log_level="debug") as s:
        for i in range(50 * FAULT_N):
            s.chat(f"{i}", max_tokens=2, timeout=30).ok()


@case
def a_model_directory_that_changes():
    """Files under the server are replaced by garbage and put back."""
    name = "test/changes"
    snapshot = cache_model(name, 71)
    with Server(models=[name]) as s:
        want = s.chat(max_tokens=6).ok().text
        for i in range(FAULT_N):
            for file in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json",
                         "model.safetensors"):
                path = os.path.join(snapshot, file)
                os.rename(path, path + ".old")
                with open(path, "wb") as f:
                    f.write((b"", b"{", b"\0" * 100, b'{"architectures":["X"]}')[i % 4])
                a = s.chat(max_tokens=6)
                if a.status != 200:
                    a.fails((400, 404, 500, 503))
                s.admin("/admin/unload", "POST")
                a = s.chat(max_tokens=6)
                if a.status != 200:
                    a.fails((400, 404, 500, 503))
                os.replace(path + ".old", path)
                s.admin("/admin/unload", "POST")
                assert s.chat(max_tokens=6, timeout=60).ok().text == want, file


@case
def weights_that_are_cut_while_they_are_used():
    """What is mapped is gone: SIGBUS. Client and log are told why in words, no picture is blamed, and nothing is tried over
    and over; what is wrong with the file is said to the next one, and with the file the model is back."""
    name = "test/cut"
    path = os.path.join(cache_model(name, 72), "model.safetensors")
    n_bytes = os.path.getsize(path)
    told = "the model's files changed while they were in use"
    content = user(image_part(data_url(picture())), "What is this?")
    # A sanitizer's own report of the signal would be an exit code.
    env = {k: f"{os.environ.get(k, '')}:handle_sigbus=0" for k in ("ASAN_OPTIONS", "TSAN_OPTIONS")}
    with Server(models=[name], env=env) as s:
        for i in range(max(2, FAULT_N)):
            want = s.chat(content, max_tokens=6).ok().text
            with open(path, "rb") as f:
                whole = f.read()
            streamed = i % 2 == 1
            if streamed:
                st = s.stream("Tell me a long story.", max_tokens=3000)
                assert st.next_text()
            os.truncate(path, 4096)
            if streamed:
                error = st.rest()[-1]
                assert error["error"]["code"] == "worker_lost" and told in error["error"]["message"], error
            else:
                a = s.chat(content, max_tokens=6)
                a.fails(503, code="worker_lost", words=told)
                assert int(a.headers["retry-after"]) >= 1, a
            for _ in range(2):
                s.chat(content, max_tokens=6).fails((404, 500, 503), words="test/cut cannot be loaded")
            wait_until(lambda: not s.workers(), 10, lambda: f"no worker: {s.workers()}")
            assert s.log().count(told + " (signal") == i + 1, s.log()[-4000:]
            assert len(whole) == n_bytes
            with open(path, "wb") as f:
                f.write(whole)
            assert s.chat(content, max_tokens=6, timeout=60).ok().text == want
        assert s.log().count("worker died") == max(2, FAULT_N), s.log()[-4000:]


@case
def a_worker_out_of_memory_descriptors():
    """Few descriptors: connections over them wait or are refused, and come back."""
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        s = Server(preexec=limit)
    except AssertionError as e:
        if "ended with" not in str(e):
            raise
        return  # it may say at its start that this is too few
    with s:
        s.chat(max_tokens=1).ok()
        socks = []
        with contextlib.suppress(OSError):
            for _ in range(100):
                socks.append(s.connect(timeout=2))
                socks[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)
        for c in socks:
            c.close()
        wait_until(lambda: answers(s), 10, "an answer again")
        s.chat(max_tokens=1).ok()


if __name__ == "__main__":
    main()
