"""ocellus serve, in short: one server from start to stop. The long suite is test_serve_*.py."""
import base64
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time
import zlib

from harness import BIN, MODEL, TMP, case, environment, main, png

SLOW = float(os.environ.get("OCELLUS_SLOW", "1"))


class Server:
    def __init__(self, *args):
        self.log_path = os.path.join(TMP, f"serve{len(args)}-{time.monotonic_ns()}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [BIN, "serve", "--port", "0", "--admin-port", "0", "-m", MODEL, "--runtime-dir", os.path.join(TMP, "run"),
                 "--ctx", "4096", "--drain-timeout", str(int(60 * SLOW)), *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())
        self.port, self.admin_port = self.ports()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def ports(self):
        """From the line that says where it listens."""
        def look():
            assert self.process.poll() is None, self.log()
            return re.search(r"listening on http://127\.0\.0\.1:(\d+) \(admin (\d+)\)", self.log())
        m = wait(look, "the line that says where it listens")
        return int(m.group(1)), int(m.group(2))

    def request(self, method, path, body=None, headers=None, admin=False):
        c = http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=60 * SLOW)
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, dict(r.getheaders()), data

    def json(self, method, path, *args, want=200, **kw):
        status, _, data = self.request(method, path, *args, **kw)
        assert status == want, (status, data[:2000])
        return json.loads(data)

    def chat(self, content="Say something.", want=200, **fields):
        return self.json("POST", "/v1/chat/completions", ask(content, **fields), want=want)

    def status(self):
        return self.json("GET", "/admin/status", admin=True)

    def worker_pid(self):
        return wait(lambda: [w["pid"] for w in self.status()["workers"] if w["state"] == "ready"], "a worker")[0]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60 * SLOW)
        log = self.log()
        assert code == 0, (code, log[-4000:])
        assert not re.search("Sanitizer|runtime error:|assertion failed", log), log[-8000:]


def wait(check, what, limit_s=30):
    end = time.monotonic() + limit_s * SLOW
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def ask(content, **fields):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "ignore_eos": True, "temperature": 0, **fields}


def picture(width=112, height=84, seed=1):
    path = png(f"{width}x{height}-{seed}.png", width, height, lambda x, y: ((x * seed + 3 * y) & 255, y & 255, x & 255))
    with open(path, "rb") as f:
        return "data:image/png;base64," + base64.b64encode(f.read()).decode()


def with_picture(url, text="What is this?"):
    return [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]


class Stream:
    def __init__(self, server, content="Say something.", **fields):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)
        body = json.dumps(ask(content, stream=True, **fields))
        self.connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()

    def events(self):
        for line in self.response:
            if line.startswith(b"data: "):
                yield "[DONE]" if line == b"data: [DONE]\n" else json.loads(line[6:])

    def close(self):
        self.connection.close()
        self.response.close()


def text_of(chunk):
    return (chunk["choices"][0]["delta"].get("content") or "") if chunk.get("choices") else ""


SERVER = []


def server():
    if not SERVER:
        SERVER.append(Server())
    return SERVER[0]


@case
def a_chat_request_loads_the_model():
    s = server()
    assert s.json("GET", "/health")["status"] == "ok"
    assert s.status()["workers"] == []
    status, headers, data = s.request("POST", "/v1/chat/completions", ask("Hello"))
    answer = json.loads(data)
    assert status == 200 and answer["object"] == "chat.completion", data
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 8
    assert "X-Queue-Wait-Ms" in headers and "X-Queue-Position" in headers and "X-Request-Id" in headers
    assert s.status()["model"]["loaded"] is True


@case
def a_stream_says_the_same():
    s = server()
    want = s.chat("Once upon a time", max_tokens=30)["choices"][0]["message"]["content"]
    events = list(Stream(s, "Once upon a time", max_tokens=30, stream_options={"include_usage": True}).events())
    assert events[-1] == "[DONE]" and events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(text_of(e) for e in events[:-1]) == want
    assert events[-2]["usage"]["completion_tokens"] == 30 and events[-3]["choices"][0]["finish_reason"] == "length"


@case
def several_choices_and_stop_strings():
    s = server()
    a = s.chat("Choices", n=3, temperature=1, seed=5, max_tokens=6)
    assert [c["index"] for c in a["choices"]] == [0, 1, 2] and a["usage"]["completion_tokens"] == 18
    text = s.chat("Stop here", max_tokens=40)["choices"][0]["message"]["content"]
    stop = text[10:13]
    b = s.chat("Stop here", max_tokens=40, stop=stop)["choices"][0]
    assert b["message"]["content"] == text[:text.index(stop)] and b["finish_reason"] == "stop", (text, stop, b)


@case
def pictures_count_and_are_kept():
    s = server()
    first, second = (s.chat(with_picture(picture(224, 168, 3))) for _ in range(2))
    u = second["usage"]["prompt_tokens_details"]
    assert u["image_tokens"] > 0 and u["cached_tokens"] > u["image_tokens"], second["usage"]
    assert first["choices"] == second["choices"] and first["images"][0]["tokens"] == u["image_tokens"]
    assert first["images"][0]["original"] == [224, 168]


@case
def errors_have_the_right_form():
    s = server()
    broken = s.chat(with_picture("data:image/png;base64,AAAA"), want=400)["error"]
    assert broken["param"] == "messages[0].content[1].image_url" and broken["code"] == "invalid_image", broken
    assert s.chat("x", want=404, model="org/none")["error"]["code"] == "model_not_found"
    assert s.chat("x", want=400, model="../x")["error"]["param"] == "model"
    long = s.chat("word " * 9000, want=400)["error"]
    assert long["code"] == "context_length_exceeded" and "4096" in long["message"], long
    assert s.chat("x", want=400, temperature="hot")["error"]["param"] == "temperature"
    assert s.json("GET", "/nothing", want=404)["error"]["type"] == "not_found_error"
    assert s.json("GET", "/v1/chat/completions", want=405)["error"]
    assert s.json("POST", "/v1/chat/completions", "{}", {"Content-Type": "text/plain"}, want=415)["error"]
    assert s.json("POST", "/v1/chat/completions", "{", {"Content-Type": "application/json"}, want=400)["error"]
    assert s.json("GET", "/health", headers={"Host": "evil.example"}, want=403)["error"]


@case
def other_endpoints():
    s = server()
    name = s.status()["model"]["name"]
    assert name in [m["id"] for m in s.json("GET", "/v1/models")["data"]]
    assert s.json("GET", "/v1/models/" + name)["id"] == name
    tokens = s.json("POST", "/tokenize", {"prompt": "hello world"})["tokens"]
    assert s.json("POST", "/detokenize", {"tokens": tokens})["prompt"] == "hello world"
    assert s.json("GET", "/ready")["ready"] is True
    assert s.json("POST", "/v1/admin/status")["workers"][0]["pid"] > 0
    for path in ("/admin/health", "/admin/metrics", "/admin/queue", "/admin/capabilities"):
        assert s.json("GET", path, admin=True)
    metrics = s.request("GET", "/metrics")[2].decode()
    assert re.search(r'^ocellus_requests_total\{endpoint="chat",status="200"\} [1-9]', metrics, re.M), metrics[:1000]
    assert re.search(r"^vllm:num_requests_running", metrics, re.M)


@case
def a_client_that_leaves_is_cancelled():
    s = server()
    st = Stream(s, "Tell me a long story", max_tokens=3500)
    next(e for e in st.events() if text_of(e))
    assert s.status()["requests"]["active_requests"] == 1
    st.close()
    wait(lambda: s.status()["requests"]["active_requests"] == 0, "the request to end", 5)
    wait(lambda: s.status()["workers"][0]["running"] == 0, "the worker to stop", 5)


@case
def a_request_without_text_is_run_again_when_its_worker_dies():
    s = server()
    want = s.chat("Again", max_tokens=300)["choices"]
    pid, box = s.worker_pid(), []
    t = threading.Thread(target=lambda: box.append(s.chat("Again", max_tokens=300)))
    t.start()
    wait(lambda: any(w["running"] for w in s.status()["workers"]), "the request to run")
    os.kill(pid, signal.SIGKILL)
    t.join(60 * SLOW)
    assert box and box[0]["choices"] == want, (box, want)
    assert s.worker_pid() != pid


def heavy_picture(seed):
    """A picture that takes a while to decode: 4000 x 3000 of noise."""
    noise = bytes((i * i * seed >> 3) & 255 for i in range(3 * 4000))
    raw = b"".join(b"\0" + noise[3 * y % 9000:] + noise[:3 * y % 9000] for y in range(3000))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    data = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 3000, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(data).decode()


@case
def a_worker_that_dies_before_it_got_the_job_costs_nothing():
    s = server()
    s.chat("x")
    pid, url, box = s.worker_pid(), heavy_picture(7), []
    content = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    t = threading.Thread(target=lambda: box.append(s.chat(content, max_tokens=2)))
    t.start()
    wait(lambda: s.status()["image_workers"]["busy"], "the picture to be looked at")
    os.kill(pid, signal.SIGKILL)
    t.join(60 * SLOW)
    assert box and box[0]["usage"]["completion_tokens"] == 2


@case
def a_stream_with_text_ends_with_an_error():
    s = server()
    st = Stream(s, "Tell me a long story", max_tokens=3500)
    events = st.events()
    next(e for e in events if text_of(e))
    os.kill(s.worker_pid(), signal.SIGKILL)
    last = list(events)[-1]
    assert last != "[DONE]" and last["error"]["code"] == "worker_lost", last
    s.chat("After")


@case
def models_are_unloaded_and_come_back():
    s = server()
    s.chat("x")
    name = s.status()["model"]["name"]
    a = s.json("POST", "/admin/unload", admin=True)
    assert a["status"] == "success" and a["model_unloaded"] == name and a["memory_freed_gb"] > 0
    assert s.json("POST", "/admin/unload", admin=True, want=400)["error"]["message"].startswith("No model")
    a = s.json("POST", "/admin/load?model_path=" + name, admin=True)
    assert a["model_name"] == name and a["load_time"] > 0 and s.worker_pid() == a["pid"]


@case
def a_full_queue_turns_away():
    s = Server("--parallel", "1", "--queue-depth", "1")
    s.chat("warm")
    st = Stream(s, "Tell me a long story", max_tokens=3500)
    next(e for e in st.events() if text_of(e))
    box = []
    t = threading.Thread(target=lambda: box.append(s.chat("Queued", max_tokens=2)))
    t.start()
    wait(lambda: s.json("GET", "/admin/queue", admin=True)["queue_depth"] == 1, "the queue")
    status, headers, data = s.request("POST", "/v1/chat/completions", ask("Too many"))
    assert status == 503 and json.loads(data)["error"]["code"] == "queue_full" and int(headers["Retry-After"]) > 0
    st.close()
    t.join(60 * SLOW)
    assert box and box[0]["usage"]["completion_tokens"] == 2
    s.stop()


@case
def it_drains_and_stops():
    s = server()
    st = Stream(s, "The last story", max_tokens=100)
    events = st.events()
    next(e for e in events if text_of(e))
    children = [s.worker_pid(), *s.status()["image_workers"]["pids"]]
    s.process.send_signal(signal.SIGTERM)
    wait(lambda: s.request("GET", "/ready")[0] == 503, "not ready")
    assert s.chat("Too late", want=503)["error"]["code"] == "shutting_down"
    assert list(events)[-1] == "[DONE]"
    assert s.process.wait(timeout=30 * SLOW) == 0, s.log()[-4000:]
    assert not re.search("Sanitizer|runtime error:|assertion failed", s.log()), s.log()[-8000:]
    for pid in children:
        assert not os.path.exists(f"/proc/{pid}"), f"process {pid} is still there"
    assert not os.listdir(os.path.join(TMP, "run")), os.listdir(os.path.join(TMP, "run"))


@case
def throughput_mode_reaches_the_worker_and_the_log():
    s = Server("--batch-mode", "throughput", "--isa", "ref")
    try:
        s.chat(max_tokens=2)
        assert any(w.get("isa") == "ref-int8" and w["throughput"] is True for w in s.status()["workers"]), s.status()["workers"]
        assert "rounded to 8 bits" in s.log() and "--batch-mode exact" in s.log(), s.log()
    finally:
        s.stop()


if __name__ == "__main__":
    try:
        main()
    finally:
        for s in SERVER:
            if s.process.poll() is None:
                s.process.kill()
