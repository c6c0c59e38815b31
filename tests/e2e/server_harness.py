"""What the tests of `ocellus serve` share: servers on free ports of 127.0.0.1, clients, pictures, a look into /proc.

Python's standard library only. Besides the variables of harness.py:
  OCELLUS_SLOW      factor on all time limits (sanitizers; default 1)
  OCELLUS_MARGIN    the same for machines that are busy; the larger of the two counts (default 3, in the long version 1)
  OCELLUS_FAULT_N   how often each fault is made (default 1)
  OCELLUS_LOAD_S    how long the load test runs (default 20)
  OCELLUS_LONG      1: the long versions of everything
"""
import base64
import contextlib
import ctypes
import faulthandler
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib

import harness
from harness import BIN, ROOT, TMP, Skip, environment

SLOW = float(os.environ.get("OCELLUS_SLOW", "1"))
FAULT_N = int(os.environ.get("OCELLUS_FAULT_N", "1"))
LOAD_S = float(os.environ.get("OCELLUS_LOAD_S", "20"))
LONG = os.environ.get("OCELLUS_LONG", "0") == "1"
SERVERS = []
SANITIZER = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:"
                       r"|assertion failed)")


# `make test` must pass on machines that are busy with other things; the long version holds the bounds as they are written.
MARGIN = float(os.environ.get("OCELLUS_MARGIN", "1" if LONG else "3"))


def seconds(s):
    """A time limit, longer where a sanitizer slows everything down."""
    return s * max(SLOW, MARGIN)


def heavy():
    """At the beginning of a case whose large pictures take minutes under a sanitizer, and which is about figures."""
    if SLOW > 1 and not LONG:
        raise Skip("too slow under a sanitizer; the release build runs it")


def wait_until(check, limit_s, what, every_s=0.02):
    """The first true value of check(); fails when there is none in time."""
    end = time.monotonic() + seconds(limit_s)
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds(limit_s):.0f} s in vain for: {what() if callable(what) else what}"
        time.sleep(every_s)


def rested(look, rest_s=1.0, limit_s=30):
    """What look() gives once it has been the same for rest_s: a connection that is closing still holds a descriptor."""
    end = time.monotonic() + seconds(limit_s)
    value, since = look(), time.monotonic()
    while time.monotonic() - since < rest_s:
        assert time.monotonic() < end, f"never the same for {rest_s} s: {value}"
        time.sleep(0.05)
        now = look()
        if now != value:
            value, since = now, time.monotonic()
    return value


@contextlib.contextmanager
def stopped(pids):
    """The processes do nothing meanwhile: what waits for them waits."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it was ended for its silence
                os.kill(pid, signal.SIGCONT)


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    try:
        for s in socks:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in socks]
    finally:
        for s in socks:
            s.close()


# ---- Models ------------------------------------------------------------------------------------------------------

TEXT_ONLY = dict(kind="qwen2", hidden=512, layers=4, heads=4, kv=2, inter=1024, vocab=151936, tied=True)


def make_model(path, seed=1, text_only=False, layers=None):
    """Writes a small random model; text_only: one without a vision tower; layers: of the decoder."""
    sys.path.insert(0, os.path.join(ROOT, "tools"))
    try:
        import make_random_model as maker
    finally:
        sys.path.pop(0)
    sizes = dict(tiny=dict(TEXT_ONLY) if text_only else dict(maker.SIZES["tiny"]))
    if layers:
        sizes["tiny"]["layers"] = layers
    old_sizes, old_argv, old_err = maker.SIZES, sys.argv, sys.stderr
    with open(os.devnull, "w") as quiet:
        maker.SIZES, sys.argv, sys.stderr = sizes, ["", "--size", "tiny", "--bits", "4", "--seed", str(seed), path], quiet
        try:
            maker.main()
        finally:
            maker.SIZES, sys.argv, sys.stderr = old_sizes, old_argv, old_err
    return path


def cache_model(name, seed=1, text_only=False, layers=None, home=None):
    """A random model called org/name in the tests' Hugging Face cache; returns its snapshot directory."""
    home = home or os.path.join(TMP, "hf")
    entry = os.path.join(home, "hub", "models--" + name.replace("/", "--"))
    revision = f"{seed:040x}"
    snapshot = os.path.join(entry, "snapshots", revision)
    if not os.path.isdir(snapshot):
        os.makedirs(os.path.dirname(snapshot), exist_ok=True)
        os.makedirs(os.path.join(entry, "refs"), exist_ok=True)
        make_model(snapshot, seed, text_only, layers)
        with open(os.path.join(entry, "refs", "main"), "w") as f:
            f.write(revision)
    return snapshot


if harness.MODEL == harness.EMBEDDED:
    # Always the random one: what these tests count (tokens of a text, of a context) must not depend on which model ships.
    harness.MODEL = make_model(os.path.join(TMP, "model"))


def model_bytes(path):
    return sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path) if f.endswith(".safetensors"))


# ---- /proc -------------------------------------------------------------------------------------------------------

def proc_stat(pid):
    """(parent, state) of a process, or None."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            rest = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(rest[1]), rest[0]


def is_alive(pid):
    s = proc_stat(pid)
    return s is not None and s[1] not in "ZX"


def descendants(pid):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            s = proc_stat(int(entry))
            if s and s[1] not in "ZX":
                parents.setdefault(s[0], []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def descriptors(pid):
    """Targets of a process's open descriptors."""
    targets = []
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                targets.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return targets


def rss_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def private_bytes(pid):
    """RSS without the mapped files."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(r"^RssAnon:\s+(\d+) kB", f.read(), re.M).group(1)) * 1024
    except (OSError, AttributeError):
        return 0


# ---- Answers -----------------------------------------------------------------------------------------------------

class Answer:
    """A whole HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, {k.lower(): v for k, v in headers}, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        """The text of the first choice."""
        c = self.json["choices"][0]
        return c["message"]["content"] if "message" in c else c["text"]

    @property
    def error(self):
        return self.json["error"]

    def ok(self):
        assert self.status == 200, self
        return self

    def fails(self, status, param=None, code=None, words=()):
        """It must be OpenAI's error object with this status (or one of them)."""
        statuses = (status,) if isinstance(status, int) else status
        assert self.status in statuses, f"wanted {status}: {self}"
        check_error_object(self.json, self)
        if param is not None:
            assert self.error["param"] == param, f"wanted param {param}: {self}"
        if code is not None:
            assert self.error["code"] == code, f"wanted code {code}: {self}"
        for word in [words] if isinstance(words, str) else words:
            assert word.lower() in self.error["message"].lower(), f"wanted '{word}': {self}"
        return self

    def __repr__(self):
        return f"HTTP {self.status} {self.headers}\n{self.body[:2000]!r}"


def check_error_object(value, where):
    assert isinstance(value, dict) and set(value) >= {"error"}, where
    e = value["error"]
    assert set(e) >= {"message", "type", "param", "code"}, where
    assert isinstance(e["message"], str) and len(e["message"]) > 3 and isinstance(e["type"], str), where
    assert e["param"] is None or isinstance(e["param"], str), where


class Stream:
    """An SSE answer: events() yields ("data", object), ("comment", text) and ("done", None)."""

    def __init__(self, server, path, body, headers=None, timeout=60):
        self.connection = server.http(timeout=timeout)
        self.connection.request("POST", path, json.dumps(body),
                                {"Content-Type": "application/json", **(headers or {})})
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.headers = {k.lower(): v for k, v in self.response.getheaders()}
        self.finished = False
        self.times = []

    def events(self):
        assert self.status == 200, (self.status, self.response.read()[:2000])
        lines = []
        while True:
            line = self.response.readline()
            if not line:
                assert not lines, f"the stream ended inside an event: {lines}"
                self.close()
                return
            line = line.rstrip(b"\r\n").decode("utf-8")
            if line:
                lines.append(line)
                continue
            for event in self.read_event(lines):
                self.times.append(time.monotonic())
                yield event
            lines = []

    def read_event(self, lines):
        data = []
        for line in lines:
            if line.startswith(":"):
                yield "comment", line[1:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            else:
                raise AssertionError(f"neither data nor comment: {line!r}")
        if data == ["[DONE]"]:
            self.finished = True
            yield "done", None
        elif data:
            yield "data", json.loads("\n".join(data))

    def chunks(self):
        """All data objects; the rest of the stream is read."""
        return [value for kind, value in self.events() if kind == "data"]

    def next_text(self):
        """Reads on to the next chunk with text; None at the end."""
        if not hasattr(self, "iterator"):
            self.iterator = self.events()
        for kind, value in self.iterator:
            if kind == "data" and chunk_text(value):
                return chunk_text(value)
        return None

    def rest(self):
        """The objects after what next_text read."""
        if not hasattr(self, "iterator"):
            self.iterator = self.events()
        return [value for kind, value in self.iterator if kind == "data"]

    def close(self):
        self.connection.close()
        self.response.close()


def chunk_text(chunk):
    if not chunk.get("choices"):
        return ""
    c = chunk["choices"][0]
    return (c["delta"].get("content") if "delta" in c else c.get("text")) or ""


def joined(chunks):
    return "".join(chunk_text(c) for c in chunks)


def finish_of(chunks):
    reasons = [c["choices"][0]["finish_reason"] for c in chunks if c.get("choices")]
    return next((r for r in reasons if r), None)


# ---- Pictures ----------------------------------------------------------------------------------------------------

def png_of_rows(width, height, rows):
    raw = b"".join(b"\0" + row for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))


@functools.lru_cache(maxsize=64)
def picture(width=112, height=84, seed=1):
    """Bytes of a PNG with coloured stripes; another seed, other pixels."""
    rows = []
    for y in range(height):
        band = (y // 7 + seed) % 5
        row = bytes((x * (seed + band) + 40 * c + y) & 0xFF for x in range(min(width, 64)) for c in range(3))
        if y == 0:  # no two seeds give the same pixels
            row = (struct.pack(">I", seed) + row)[:len(row)]
        rows.append((row * (width // min(width, 64) + 1))[:3 * width])
    return png_of_rows(width, height, rows)


def data_url(data, kind="image/png"):
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def image_part(url, **fields):
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def text_part(text):
    return {"type": "text", "text": text}


def user(*parts):
    """One user message; strings become text parts when there are others."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return [{"role": "user", "content": parts[0]}]
    return [{"role": "user", "content": [text_part(p) if isinstance(p, str) else p for p in parts]}]


def ask(text="Tell me something.", max_tokens=8, **fields):
    """A chat body whose answer has exactly max_tokens tokens."""
    body = {"messages": user(text) if isinstance(text, str) else text, "max_tokens": max_tokens, "ignore_eos": True,
            "temperature": 0, **fields}
    return {k: v for k, v in body.items() if v is not ...}


def long_answer(text="Slow"):
    """A chat body whose answer is some megabytes: more than a client's socket and the server hold."""
    return ask(text, max_tokens=3000, logprobs=True, top_logprobs=20)


def request_bytes(body, path="/v1/chat/completions", version="1.1"):
    """A whole request as it stands on the wire."""
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


# ---- Servers -----------------------------------------------------------------------------------------------------

# Options whose flag is not their name with dashes (src/server/config.def).
FLAGS = {"models": "--model", "ctx_tokens": "--ctx", "max_body_bytes": "--max-body", "max_image_bytes": "--max-image",
         "idle_unload_s": "--idle-unload", "ping_s": "--ping"}


def flags_of(options):
    args = []
    for key, value in options.items():
        flag = FLAGS.get(key, "--" + key.replace("_", "-"))
        if value is True:
            args.append(flag)
        elif value is False:
            args.append("--no-" + flag[2:])
        else:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                args += [flag, str(item)]
    return args


@functools.lru_cache(maxsize=1)
def serve_help():
    return harness.ocellus("help", "serve").out


def need_option(*names):
    for name in names:
        if not re.search(rf"(?<![\w-]){re.escape(name)}\b", serve_help()):
            raise Skip(f"this version has no option {name}")


def die_with_parent():
    """In a server before its exec: a test program that is ended takes its servers along."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """A running `ocellus serve`. Keyword arguments are options by their names in src/server/config.h. With tls_cert its
    clients speak TLS and trust that certificate."""

    n_made = 0

    def __init__(self, args=(), env=None, wait=True, models=None, preexec=None, log=None, **options):
        Server.n_made += 1
        self.dir = os.path.join(TMP, f"server{Server.n_made}")
        os.makedirs(self.dir, mode=0o700)
        self.port, self.admin_port = free_ports(2)
        options = {"port": self.port, "admin_port": self.admin_port, "models": models or [harness.MODEL],
                   "runtime_dir": os.path.join(self.dir, "run"), "ctx_tokens": 4096, "threads": 2,
                   "speculate": "off", **options}  # long answers must stay long: the random model soon repeats itself
        options = {k: v for k, v in options.items() if v is not None}
        self.tls = ssl.create_default_context(cafile=options["tls_cert"]) if "tls_cert" in options else None
        self.args = [BIN, "serve", *flags_of(options), *map(str, args)]
        self.log_path = log or os.path.join(self.dir, "log")
        self.env = environment(**{"E2E_MARK": self.mark(), **(env or {})})
        def before_exec():
            die_with_parent()
            if preexec:
                preexec()
        with open(self.log_path, "ab") as f:
            self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=self.env,
                                            cwd=self.dir, preexec_fn=before_exec)
        self.pid = self.process.pid
        self.seen = set()
        self.expected_alive = True
        self.log_checked = 0
        SERVERS.append(self)
        if wait:
            try:
                self.wait_ready()
            except Exception:
                self.kill()
                raise

    def mark(self):
        return f"{TMP}-{Server.n_made}"

    def wait_ready(self, limit_s=30):
        def ready():
            assert self.alive(), f"the server ended with {self.process.returncode} at its start:\n{self.log()[-4000:]}"
            try:
                return self.get("/health", timeout=2).status == 200
            except OSError:
                return False
        wait_until(ready, limit_s, lambda: "GET /health\n" + self.log()[-4000:])
        return self

    def alive(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    # -- requests

    def http(self, admin=False, timeout=60):
        """A connection for http.client's requests."""
        at = ("127.0.0.1", self.admin_port if admin else self.port)
        if self.tls:
            return http.client.HTTPSConnection(*at, timeout=seconds(timeout), context=self.tls)
        return http.client.HTTPConnection(*at, timeout=seconds(timeout))

    def request(self, method, path, body=None, headers=None, admin=False, timeout=60):
        c = self.http(admin, timeout)
        try:
            h = dict(headers or {})
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
                h.setdefault("Content-Type", "application/json")
            c.request(method, path, body, h)
            r = c.getresponse()
            return Answer(r.status, r.getheaders(), r.read())
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def admin(self, path, method="GET", body=None, **kw):
        return self.request(method, path, body, admin=True, **kw)

    def chat(self, text="Tell me something.", headers=None, timeout=60, **fields):
        return self.post("/v1/chat/completions", ask(text, **fields), headers=headers, timeout=timeout)

    def complete(self, prompt="The capital of France is", headers=None, timeout=60, **fields):
        body = {"prompt": prompt, "max_tokens": 8, "ignore_eos": True, "temperature": 0, **fields}
        return self.post("/v1/completions", {k: v for k, v in body.items() if v is not ...}, headers=headers,
                         timeout=timeout)

    def stream(self, text="Tell me something.", headers=None, timeout=60, path="/v1/chat/completions", **fields):
        body = ask(text, **fields) if path.endswith("chat/completions") else fields
        return Stream(self, path, {**body, "stream": True}, headers, timeout)

    def connect(self, admin=False, timeout=30, bare=False):
        """A socket; bare: without TLS, whatever the server speaks."""
        c = socket.create_connection(("127.0.0.1", self.admin_port if admin else self.port), seconds(timeout))
        return c if bare or not self.tls else self.tls.wrap_socket(c, server_hostname="127.0.0.1")

    def slow_reader(self, body, version="1.1", timeout=60):
        """A socket that takes little at once, with this completion asked for; who has it reads when and what he likes."""
        c = socket.socket()
        c.settimeout(seconds(timeout))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # counts only before the connection is made
        c.connect(("127.0.0.1", self.port))
        if self.tls:
            c = self.tls.wrap_socket(c, server_hostname="127.0.0.1")
        c.sendall(request_bytes({**body, "stream": True}, version=version))
        return c

    def raw(self, data, timeout=10, admin=False):
        """Sends bytes and reads until the server closes, or the time is over: (bytes, closed)."""
        with self.connect(admin, timeout) as s:
            with contextlib.suppress(OSError):
                s.sendall(data)
            return read_all(s)

    # -- what it is doing

    def status(self):
        return self.admin("/admin/status").ok().json

    def workers_status(self):
        return self.status()["workers"]

    def metrics(self):
        return parse_metrics(self.admin("/metrics").ok().body.decode())

    def metric(self, name, **labels):
        """Sum of the samples with these labels; 0 when there are none."""
        return sum(v for (n, l), v in self.metrics().items() if n == name and labels.items() <= dict(l).items())

    def children(self):
        found = descendants(self.pid)
        self.seen.update(found)
        return found

    def of_role(self, role):
        return [p for p in self.children() if role in command_line(p)[:3]]

    def workers(self):
        return self.of_role("worker")

    def image_workers(self):
        return self.of_role("image-worker")

    def one_worker(self, limit_s=30):
        return wait_until(lambda: self.workers(), limit_s, "a worker")[0]

    def memfds(self):
        return {p: sum("memfd:" in t for t in descriptors(p)) for p in [self.pid, *self.children()]}

    def n_descriptors(self):
        return {p: len(descriptors(p)) for p in [self.pid, *self.children()]}

    def is_idle(self):
        s = self.status()
        return s["requests"]["active_requests"] == 0

    def wait_idle(self, limit_s=20):
        wait_until(self.is_idle, limit_s, lambda: f"no active request: {json.dumps(self.status())}")

    def wait_doing(self, *what, limit_s=20):
        """Waits until a worker is in one of these stages."""
        wait_until(lambda: any(w.get("state") in what or w.get("doing") in what for w in self.workers_status()),
                   limit_s, lambda: f"a worker in {what}: {self.workers_status()}", 0.002)

    # -- the end

    def check_log(self):
        """No sanitizer and no assertion has spoken since the last look."""
        text = self.log()
        new, self.log_checked = text[self.log_checked:], len(text)
        m = SANITIZER.search(new)
        assert not m, "in the log:\n" + new[max(0, m.start() - 500):m.start() + 4000]

    def marked(self):
        """Processes that carry this server's mark in their environment."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    with open(f"/proc/{entry}/environ", "rb") as f:
                        if f"E2E_MARK={self.env['E2E_MARK']}\0".encode() in f.read() and is_alive(int(entry)):
                            found.append(int(entry))
        return found

    def orphans(self):
        return sorted({p for p in self.seen if is_alive(p) and BIN in command_line(p)[:1]} | set(self.marked()))

    def check_no_orphans(self, limit_s=5):
        wait_until(lambda: not self.orphans(), limit_s,
                   lambda: f"its processes to end: {[(p, command_line(p)) for p in self.orphans()]}")

    def stop(self, number=signal.SIGTERM, code=0, limit_s=30):
        """Ends it, and looks at what it leaves: the exit code, no process, no sanitizer's report."""
        self.expected_alive = False
        assert self.alive(), f"it had ended before with {self.process.returncode}:\n{self.log()[-4000:]}"
        self.children()
        self.process.send_signal(number)
        try:
            got = self.process.wait(timeout=seconds(limit_s))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds(limit_s)} s:\n{self.log()[-4000:]}") from None
        assert got == code, f"exit code {got}, wanted {code}:\n{self.log()[-4000:]}"
        self.check_no_orphans()
        self.check_log()

    def kill(self):
        """Ends it and its children by SIGKILL; checks nothing."""
        self.expected_alive = False
        if self.process.poll() is None:
            self.children()
            self.process.kill()
            self.process.wait()
        for p in self.orphans():
            with contextlib.suppress(OSError):
                os.kill(p, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None and self.alive():
            self.stop()
        else:
            self.kill()


def read_all(s):
    """(bytes, closed): what comes until the other side closes or the socket's time is over."""
    data = b""
    try:
        while True:
            more = s.recv(65536)
            if not more:
                return data, True
            data += more
    except socket.timeout:
        return data, False
    except OSError:
        return data, True


def status_of(data):
    """The status of a raw answer, or None."""
    m = re.match(rb"HTTP/1\.[01] (\d{3}) ", data)
    return int(m.group(1)) if m else None


def parse_metrics(text):
    """{(name, ((label, value), ...)): number} of Prometheus' text format."""
    out = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        m = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)(?: \d+)?", line)
        assert m, f"not a sample: {line!r}"
        labels = tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m.group(2) or ""))
        assert (m.group(1), labels) not in out, f"twice: {line!r}"
        out[m.group(1), labels] = float(m.group(3))
    return out


class Shared:
    """One server for the cases of a file, made when first asked for and anew when a case broke it."""

    def __init__(self, **options):
        self.options, self.server = options, None

    def __call__(self):
        if self.server is None or not self.server.alive():
            options = {k: v() if callable(v) else v for k, v in self.options.items()}
            self.server = Server(**options)
        return self.server


def case(fn):
    """Marks a test function; the servers must live on after it, without a word from a sanitizer."""
    @functools.wraps(fn)
    def checked():
        began = time.monotonic()
        fn()
        if time.monotonic() - began > 3:
            print(f"{time.monotonic() - began:.1f} s")
        for s in SERVERS:
            if s.expected_alive:
                if not s.alive():
                    s.expected_alive = False
                    raise AssertionError(f"the server died with {s.process.returncode}:\n{s.log()[-6000:]}")
                s.check_log()
    return harness.case(checked)


def in_parallel(jobs, limit_s=120):
    """Runs functions at once; their results in order. The first exception is raised."""
    results, errors = [None] * len(jobs), []

    def run(i):
        try:
            results[i] = jobs[i]()
        except Exception as e:  # told to the caller
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for t in threads:
        t.start()
    end = time.monotonic() + seconds(limit_s)
    for t in threads:
        t.join(max(0.0, end - time.monotonic()))
    assert not any(t.is_alive() for t in threads), f"{sum(t.is_alive() for t in threads)} of {len(jobs)} did not end"
    if errors:
        raise errors[0]
    return results


def in_background(job):
    """Runs a function in a thread; call the result to have its value or exception."""
    box = {}

    def run():
        try:
            box["value"] = job()
        except Exception as e:  # told to the caller
            box["error"] = e

    t = threading.Thread(target=run, daemon=True)
    t.start()

    def join(limit_s=60):
        t.join(seconds(limit_s))
        assert not t.is_alive(), "a request in the background did not end"
        if "error" in box:
            raise box["error"]
        return box["value"]

    join.is_done = lambda: not t.is_alive()
    return join


def need_program(name):
    path = shutil.which(name) or next((p for p in (f"/usr/sbin/{name}",) if os.path.exists(p)), None)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def main(*shared):
    """Runs the cases; then every server still there must stop cleanly."""
    if "serve" not in harness.ocellus("--help").out:
        print("this build has no `ocellus serve`")

    def every_server_stops_cleanly():
        for s in SERVERS:
            if s.expected_alive:
                s.stop()
    harness.case(every_server_stops_cleanly)
    faulthandler.dump_traceback_later(7000 if LONG else seconds(400), exit=True)
    try:
        harness.main()
    finally:
        for s in SERVERS:
            s.kill()
