"""ocellus serve over HTTP: health, status, models, errors, keep-alive, limits, browsers, keys, the rate limit.

Names carry the item of the contract that a case checks (bb_014 is item 14). Where the specification of the server
decided otherwise, the case says so.
"""
import json
import re
import socket
import subprocess
import time

from server_harness import (LONG, SLOW, Server, Shared, ask, case, in_parallel, main,
                            need_program, read_all, seconds, status_of, wait_until)
from harness import TMP, write

server = Shared()
JSON = {"Content-Type": "application/json"}


@case
def bb_001_health_is_200_without_a_model():
    """Item 1 wants 200 only with a loaded model and version 3.2.0; here liveness is not readiness, and the version is
    ocellus' own."""
    s = server()
    assert not s.workers(), "a model is loaded on the first request, not at the start"
    a = s.get("/health").ok()
    assert a.headers["content-type"].startswith("application/json")
    assert a.json.get("healthy") is True or a.json.get("status") in ("ok", "healthy"), a
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", a.json["version"]), a


@case
def bb_002_health_says_healthy_quickly():
    began = time.monotonic()
    assert b"healthy" in server().get("/health", timeout=5).ok().body
    assert time.monotonic() - began < 5


@case
def bb_003_ready_is_200_or_503():
    a = server().get("/ready")
    assert a.status in (200, 503), a
    assert isinstance(a.json["ready"], bool) and isinstance(a.json["conditions"], dict), a
    assert a.json["ready"] == (a.status == 200), a


@case
def bb_005_admin_health_without_a_model():
    a = server().admin("/admin/health").ok().json
    assert a["status"] in ("healthy", "degraded") and "worker_status" in a and a["version"], a


@case
def bb_007_status_before_any_request():
    a = server().status()
    assert a["model"]["loaded"] is False and a["model"]["name"] is None and a["model"]["memory_gb"] == 0, a
    assert a["workers"] == [], a


@case
def bb_006_admin_status():
    """Item 6 wants version 3.2.0; here it is ocellus' own."""
    s = server()
    a = s.status()
    assert a["status"] == "running" and a["version"], a
    assert a["ports"] == {"main": s.port, "admin": s.admin_port}, a
    assert set(a["model"]) >= {"loaded", "name", "memory_gb"} and a["config"]["machine_type"], a
    assert isinstance(a["alerts"], list), a


@case
def bb_011_capabilities_without_a_model():
    """Item 11's detection_method "no_model_loaded" stands; nothing else is known before a model is there."""
    a = server().admin("/admin/capabilities").ok().json
    assert a["model"] is None and a["capabilities"]["text"] is True and a["capabilities"]["vision"] is False, a
    assert a["detection_method"] == "no_model_loaded", a


@case
def bb_010_unload_without_a_model():
    a = server().admin("/admin/unload", "POST")
    assert a.status in (400, 404), a
    assert "no model" in a.body.decode().lower(), a
    assert "error" in a.json or "detail" in a.json, a


@case
def bb_004_admin_health_with_a_model():
    s = server()
    s.chat(max_tokens=1).ok()
    a = s.admin("/admin/health").ok().json
    assert a["status"] == "healthy" and a["worker_status"] == "healthy" and a["version"], a
    assert s.get("/ready").ok().json["ready"] is True


@case
def bb_012_013_capabilities_come_from_the_config():
    """Items 12 and 13 detect vision by name; here config.json decides, so a vision model of any name has it."""
    a = server().admin("/admin/capabilities").ok().json
    assert a["model"] and a["capabilities"]["text"] is True and a["capabilities"]["vision"] is True, a
    assert a["detection_method"] not in ("model_name", "no_model_loaded"), a


@case
def bb_014_models():
    s = server()
    a = s.get("/v1/models").ok().json
    assert a["object"] == "list" and a["data"], a
    for m in a["data"]:
        assert m["object"] == "model" and isinstance(m["created"], int) and m["owned_by"] and m["id"], m
    one = a["data"][0]
    assert s.get("/v1/models/" + one["id"].replace("/", "%2F")).ok().json["id"] == one["id"]
    s.get("/v1/models/no-org/no-such-model").fails(404)


@case
def bb_015_metrics():
    a = server().admin("/metrics").ok()
    assert a.headers["content-type"].startswith("text/plain"), a
    text = a.body.decode()
    for name in ("mlx_requests_total", "mlx_request_latency_seconds"):
        assert name in text, f"{name} of the seed is not among the metrics"


@case
def bb_016_admin_metrics():
    a = server().admin("/admin/metrics").ok().json
    assert isinstance(a["total_requests"], (int, float)) and a["total_requests"] >= 1, a
    assert a["rate_limiter"]["enabled"] is False, a
    assert a["success_rate"] <= 1, a


@case
def bb_017_admin_queue():
    a = server().admin("/admin/queue").ok().json
    assert a["enabled"] is True and isinstance(a["active_slots"], int) and a["max_slots"] >= 1, a


@case
def the_seeds_status_is_on_the_main_port_by_get_and_post():
    s = server()
    for a in (s.get("/v1/admin/status").ok(), s.request("POST", "/v1/admin/status").ok()):
        (w,) = a.json["workers"]
        assert w["pid"] in s.workers() and w["model"] and w["state"], w
        for field in ("id", "tps", "memory_gb", "load_time_s", "ttft_ms"):
            assert field in w, (field, w)
        assert w["memory_gb"] > 0 and w["load_time_s"] > 0, w


@case
def figures_of_a_worker_are_live():
    s = server()
    s.chat(max_tokens=40).ok()
    (w,) = wait_until(lambda: [x for x in s.workers_status() if x["tps"] > 0], 5, "tps over 0")
    assert 0 < w["ttft_ms"] < seconds(60000), w


# ---- Errors ------------------------------------------------------------------------------------------------------

@case
def errors_are_openais_object_on_both_ports():
    s = server()
    for admin in (False, True):
        s.get("/nothing/here", admin=admin).fails(404)
        s.get("/", admin=admin).fails((404,)) if admin else None
        s.request("DELETE", "/health", admin=admin).fails((404, 405))
    s.get("/v1/chat/completions").fails(405)
    s.request("PUT", "/v1/completions", b"{}", headers=JSON).fails(405)


@case
def bad_bodies_are_400():
    s = server()
    for body in (b"", b"{", b"[]", b"1", b'"x"', b"{}", b'{"messages":[]', b"\xff\xfe{}", b"{}{}",
                 b'{"messages":[{"role":"user","content":"a"}],}', b'{"a":1,"messages":"x"}', b"nul",
                 b'{"messages":[{"role":"user","content":"\xff"}]}',
                 b'{"messages":[{"role":"user","content":"a\x01"}]}',
                 b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"):
        s.post("/v1/chat/completions", body, headers=JSON).fails(400)
        s.post("/v1/completions", body, headers=JSON).fails(400)


@case
def a_post_needs_json():
    """Against web pages: only application/json cannot be sent across sites without a preflight."""
    s = server()
    body = json.dumps(ask(max_tokens=1))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                 "application/jsonx", None):
        headers = {"Content-Type": kind} if kind else {}
        s.post("/v1/chat/completions", body.encode(), headers=headers).fails((400, 415))
    s.post("/v1/chat/completions", body, headers={"Content-Type": "application/json; charset=utf-8"}).ok()
    s.post("/v1/chat/completions", body, headers={"Content-Type": "APPLICATION/JSON"}).ok()


# ---- Connections -------------------------------------------------------------------------------------------------

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@case
def a_connection_is_kept_alive():
    s = server()
    with s.connect() as c:
        for _ in range(50):
            c.sendall(GET)
            assert status_of(read_one(c)) == 200
        c.sendall(LAST)
        data, closed = read_all(c)
        assert status_of(data) == 200 and closed and b"connection: close" in data.lower()


def read_one(c):
    """One answer with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = c.recv(65536)
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    n = int(re.search(rb"content-length: *(\d+)", head.lower()).group(1))
    while len(rest) < n:
        more = c.recv(65536)
        assert more, data
        rest += more
    assert len(rest) == n, "more bytes than the answer has"
    return head + b"\r\n\r\n" + rest


@case
def pipelined_requests_are_answered_in_order():
    s = server()
    one = b"GET /nothing/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    data, closed = s.raw(GET + one % 1 + GET + LAST)
    assert closed and [int(m) for m in re.findall(rb"HTTP/1\.1 (\d{3})", data)] == [200, 404, 200, 200], data


@case
def http_1_0_closes():
    data, closed = server().raw(b"GET /health HTTP/1.0\r\n\r\n")
    assert closed and status_of(data) == 200, data


@case
def head_has_no_body():
    data, closed = server().raw(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert closed and status_of(data) in (200, 405) and data.endswith(b"\r\n\r\n"), data


@case
def a_request_may_come_byte_by_byte():
    s = server()
    body = json.dumps(ask(max_tokens=1)).encode()
    data = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)) + body
    with s.connect() as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(data)):
            c.sendall(data[i:i + 1])
        answer, closed = read_all(c)
    assert closed and status_of(answer) == 200, answer


@case
def a_chunked_body_is_read():
    body = json.dumps(ask(max_tokens=1)).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7))
    data, closed = server().raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks +
                                b"0\r\n\r\n", timeout=30)
    assert closed and status_of(data) == 200, data


@case
def expect_100_continue_is_answered():
    body = json.dumps(ask(max_tokens=1)).encode()
    s = server()
    with s.connect() as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        first = c.recv(65536)
        assert first.startswith(b"HTTP/1.1 100 "), first
        c.sendall(body)
        data, closed = read_all(c)
    assert status_of(data) == 200, data


# Every one of these breaks a rule of RFC 9110 or RFC 9112. None may be answered with success, and what follows on the same
# connection must not be taken for a request of its own.
def malformed():
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    heads = [
        b"GET /health\r\n\r\n", b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /health  HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET\t/health\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n", b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1x\r\nHost: localhost\r\n\r\n", b"GET /health http/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1\r\nHost: localhost\r\n\r\n", b"GET /health HTTP/01.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: localhost\n\n", b"GET /health HTTP/1.1\r\nHost: localhost\n\r\n",
        b"GET /health HTTP/1.1\rHost: localhost\r\r", b"GET /health HTTP/1.1\r\nHost: localhost\r\r\n\r\n",
        b"GET health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /he alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /health\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G(T /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n", b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX Y: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x7fb\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX(: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 64, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    bodies = [
        b"Content-Length: -1\r\n\r\n", b"Content-Length: +2\r\n\r\n{}", b"Content-Length: 0x2\r\n\r\n{}",
        b"Content-Length: 2 \r\nContent-Length: 3\r\n\r\n{}1", b"Content-Length: 2, 3\r\n\r\n{}1",
        b"Content-Length: 2,2\r\n\r\n{}", b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: \r\n\r\n", b"Content-Length: a\r\n\r\n", b"Content-Length: 1 1\r\n\r\n" + b"{" * 11,
        b"Content-Length: 99999999999999999999999\r\n\r\n{}", b"Content-Length: 18446744073709551618\r\n\r\n{}",
        b"Content-Length: 2.0\r\n\r\n{}", b"Content-Length: \xb2\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: identity\r\n\r\n{}",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \r\n\r\n0\r\n\r\n", b"Transfer-Encoding\x20: chunked\r\n\r\n0\r\n\r\n",
    ]
    chunks = [
        b"-1\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"2 \n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n",
        b"2\r\n{}0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"g\r\n\r\n", b"\r\n{}\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n", b"2\r{}\r\n0\r\n\r\n", b" 2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX\x00: a\r\n\r\n", b"2\r\n{}\r\n0\r\n X: a\r\n\r\n", b"2_0\r\n{}\r\n0\r\n\r\n",
        b"2;a=\x00\r\n{}\r\n0\r\n\r\n", b"2;a=b\n{}\r\n0\r\n\r\n",
    ]
    return heads + [post + b for b in bodies] + [post + b"Transfer-Encoding: chunked\r\n\r\n" + c for c in chunks]


@case
def malformed_requests_are_refused_and_nothing_is_smuggled():
    s = server()
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Smuggled: 1\r\n\r\n"
    for data in malformed():
        answer, closed = s.raw(data + smuggled, timeout=12 if LONG else 4)
        statuses = [int(m) for m in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
        assert all(400 <= n < 600 for n in statuses) and len(statuses) <= 1, (data, answer)
        assert closed, f"the connection stays open after {data!r}: {answer!r}"
    s.get("/health").ok()


@case
def what_nginx_refuses_is_refused():
    """The same list before nginx: whatever it will not take, ocellus will not either (and ocellus takes none of it)."""
    nginx = need_program("nginx")
    from server_harness import free_ports
    (port,) = free_ports(1)
    conf = write("nginx-diff/nginx.conf", f"""
daemon off; master_process off; worker_processes 1; pid {TMP}/nginx-diff/pid; error_log /dev/null;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {TMP}/nginx-diff/b; proxy_temp_path {TMP}/nginx-diff/p;
fastcgi_temp_path {TMP}/nginx-diff/f; uwsgi_temp_path {TMP}/nginx-diff/u; scgi_temp_path {TMP}/nginx-diff/s;
server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }} }}
""")
    p = subprocess.Popen([nginx, "-e", "/dev/null", "-c", conf], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    try:
        def ask_nginx(data):
            with socket.create_connection(("127.0.0.1", port), 5) as c:
                c.settimeout(0.2)
                c.sendall(data)
                return read_all(c)

        def up():
            try:
                return status_of(ask_nginx(LAST)[0]) == 200
            except OSError:
                return False
        wait_until(up, 10, "nginx")
        s, refused = server(), 0
        for data in malformed():
            theirs, closed = ask_nginx(data)
            n = status_of(theirs)
            if closed and (n is None or n >= 400):  # else it waits for more, or takes it
                refused += 1
                mine = status_of(s.raw(data, timeout=2)[0])
                assert mine is None or mine >= 400, (data, n, mine)
        assert refused > 20, "nginx refused next to nothing: the comparison says nothing"
    finally:
        p.terminate()
        p.wait(timeout=10)


# ---- Limits ------------------------------------------------------------------------------------------------------

@case
def heads_have_a_limit():
    s = server()
    for data in (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
                 b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 500 + b"\r\n"):
        answer, closed = s.raw(data)
        assert closed and status_of(answer) in (400, 414, 431), answer
        assert b'"error"' in answer, answer


@case
def bodies_have_a_limit_before_they_are_read():
    s = server()
    data, closed = s.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                         b"Content-Length: 10000000000\r\n\r\n")
    assert closed and status_of(data) == 413 and b'"error"' in data, data


@case
def a_chunked_body_has_the_same_limit():
    with Server(max_body_bytes=100000) as s:
        head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n")
        data, closed = s.raw(head + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 20 + b"0\r\n\r\n")
        assert closed and status_of(data) == 413, data
        s.chat("x" * 200000).fails(413)


@case
def a_slow_head_is_cut_off():
    """The deadline is on the whole head: a byte now and then does not move it."""
    s = server()
    with s.connect(timeout=40) as c:
        began, closed = time.monotonic(), False
        c.settimeout(0.5)
        for ch in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10000:
            try:
                c.sendall(bytes([ch]))
                got = c.recv(1000)
                closed = not got or b"408" in got
            except socket.timeout:
                pass
            except OSError:
                closed = True
            if closed or time.monotonic() - began > seconds(20):
                break
        assert closed and 5 < time.monotonic() - began < seconds(20), time.monotonic() - began


@case
def a_slow_head_does_not_hold_others():
    s = server()
    socks = [s.connect() for _ in range(100)]
    try:
        for c in socks:
            c.sendall(b"GET /health HT")
        began = time.monotonic()
        s.get("/health").ok()
        assert time.monotonic() - began < seconds(1)
    finally:
        for c in socks:
            c.close()


@case
def connections_have_a_cap():
    with Server(max_connections=20) as s:
        socks = []
        try:
            for _ in range(40):
                c = s.connect(timeout=3)
                c.sendall(GET)
                socks.append(c)
            served = refused = 0
            for c in socks:
                try:
                    data = c.recv(65536)
                except OSError:
                    data = b""
                served += status_of(data) == 200
                refused += status_of(data) != 200
            assert 1 <= served <= 20 and refused >= 20, (served, refused)
        finally:
            for c in socks:
                c.close()
        wait_until(lambda: s.get("/health").status == 200, 5, "room for a new connection")


@case
def connections_of_one_address_have_a_cap():
    with Server(max_connections=20, max_connections_per_ip=4) as s:
        def get(source):
            c = socket.create_connection(("127.0.0.1", s.port), seconds(10), source_address=(source, 0))
            c.sendall(GET)
            return c, status_of(c.recv(65536))

        held = []
        try:
            for source, statuses in (("127.0.0.1", [200] * 4 + [503] * 3), ("127.0.0.2", [200] * 4 + [503])):
                for status in statuses:
                    c, got = get(source)
                    held.append(c)
                    assert got == status, (source, status, got)
        finally:
            for c in held:
                c.close()
        wait_until(lambda: s.get("/health").status == 200, 5, "room for a new connection")


@case
def health_is_quick_while_a_worker_computes():
    """The bar, 5 ms at p99, is asked for in the long version; the short one runs on busy machines."""
    s = server()
    streams = [s.stream("Tell me a long story.", max_tokens=200 if SLOW == 1 else 40) for _ in range(2)]
    try:
        for st in streams:
            assert st.next_text()
        times = []
        with s.connect() as c:
            for _ in range(200):
                began = time.monotonic()
                c.sendall(GET)
                read_one(c)
                times.append(time.monotonic() - began)
                time.sleep(0.002)
        times.sort()
        assert times[len(times) // 2] < seconds(0.005), f"median {1000 * times[len(times) // 2]:.1f} ms"
        assert times[int(len(times) * 0.99)] < seconds(0.005 if LONG else 0.1), f"p99 {1000 * times[-2]:.1f} ms"
    finally:
        for st in streams:
            st.close()


# ---- Browsers ----------------------------------------------------------------------------------------------------

def host_status(s, host, admin=False):
    data, _ = s.raw(b"GET /v1/models HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n", admin=admin)
    return status_of(data)


@case
def the_host_must_be_ours():
    """Against DNS rebinding: an IP literal, localhost or an allowed name."""
    with Server(allowed_hosts=["ocellus.example"]) as s:
        for host in ("127.0.0.1", f"127.0.0.1:{s.port}", "localhost", f"LOCALHOST:{s.port}", "[::1]", "192.168.1.7:80",
                     "ocellus.example", "Ocellus.Example:11440"):
            assert host_status(s, host) == 200, host
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "ocellus.example.evil",
                     "evilocellus.example", "xlocalhost", "0x7f.1.evil"):
            assert host_status(s, host) in (400, 403), host
            data, _ = s.raw(b"GET /admin/status HTTP/1.1\r\nHost: " + host.encode() +
                            b"\r\nConnection: close\r\n\r\n", admin=True)
            assert status_of(data) in (400, 403), f"{host} on the admin port"


@case
def an_origin_must_be_ours():
    with Server(allowed_origins=["https://good.example"]) as s:
        def post(origin):
            return s.chat(max_tokens=1, headers={"Origin": origin})
        a = post("https://good.example").ok()
        assert a.headers.get("access-control-allow-origin") == "https://good.example", a
        assert "origin" in a.headers.get("vary", "").lower(), a
        post(f"http://127.0.0.1:{s.port}").ok()
        for origin in ("https://evil.example", "null", "http://good.example", "https://good.example.evil",
                       "https://good.example:444", "http://localhost.evil"):
            a = post(origin)
            a.fails(403)
            assert "access-control-allow-origin" not in a.headers, a
            a = s.request("POST", "/admin/unload", admin=True, headers={"Origin": origin})
            a.fails(403)


@case
def preflights_are_answered_for_allowed_origins():
    with Server(allowed_origins=["https://good.example"]) as s:
        def preflight(origin):
            return s.request("OPTIONS", "/v1/chat/completions", headers={
                "Origin": origin, "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type"})
        a = preflight("https://good.example")
        assert a.status in (200, 204) and a.headers["access-control-allow-origin"] == "https://good.example", a
        assert "POST" in a.headers["access-control-allow-methods"], a
        allowed = a.headers["access-control-allow-headers"].lower()
        assert allowed == "*" or ("authorization" in allowed and "content-type" in allowed), a
        a = preflight("https://evil.example")
        assert "access-control-allow-origin" not in a.headers, a


@case
def without_a_list_no_origin_is_told_anything():
    a = server().get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in a.headers, a


# ---- Keys and rates ----------------------------------------------------------------------------------------------

@case
def keys_are_needed_when_there_are_some():
    keys = write("keys", "# the keys of the test\nsecret-one\nteam secret-two\n")
    with Server(api_keys_file=keys) as s:
        s.get("/health").ok()
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-one"},
                        {"Authorization": "Bearer "}, {"Authorization": "Bearer secret-on"},
                        {"Authorization": "Bearer secret-onex"}, {"Authorization": "Basic secret-one"},
                        {"x-api-key": "wrong"}, {"Authorization": "Bearer team"}):
            a = s.chat(max_tokens=1, headers=headers)
            a.fails(401, code="invalid_api_key")
            assert a.error["type"] == "authentication_error", a
            s.get("/v1/models", headers=headers).fails(401)
            s.admin("/admin/unload", "POST", headers=headers).fails(401)
            assert "secret" not in a.body.decode()
        for headers in ({"Authorization": "Bearer secret-one"}, {"Authorization": "bearer secret-two"},
                        {"x-api-key": "secret-two"}):
            s.chat(max_tokens=1, headers=headers).ok()
        assert "secret-" not in s.log(), "a key is in the log"


@case
def a_wrong_key_is_refused_before_the_body():
    keys = write("keys2", "k1\n")
    with Server(api_keys_file=keys) as s:
        data, closed = s.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                             b"Content-Length: 50000000\r\n\r\n")
        assert status_of(data) == 401, data


@case
def bb_098_without_a_rate_limit_all_pass():
    s = server()
    assert [s.chat(max_tokens=1).status for _ in range(100)] == [200] * 100


@case
def bb_098_the_sixth_of_a_burst_of_five():
    with Server(rate_limit=True, rate_per_minute=5, rate_burst=5) as s:
        for _ in range(5):
            s.chat(max_tokens=1).ok()
        a = s.chat(max_tokens=1)
        a.fails(429, code="rate_limit_exceeded")
        assert int(a.headers["retry-after"]) >= 1, a
        s.get("/health").ok()
        s.get("/v1/models").ok()
        assert s.admin("/admin/metrics").ok().json["rate_limiter"]["enabled"] is True


@case
def bb_099_the_bucket_fills_again():
    with Server(rate_limit=True, rate_per_minute=60, rate_burst=1) as s:
        s.complete(max_tokens=1).ok()
        s.admin("/admin/load?model_path=" + s.get("/v1/models").json["data"][0]["id"], "POST")
        time.sleep(1.2)
        s.complete(max_tokens=1).ok()
        a = s.complete(max_tokens=1)
        if a.status != 200:  # a slow machine may take a second for a token
            a.fails(429)
            assert int(a.headers["retry-after"]) == 1, a
        time.sleep(1.2)
        s.complete(max_tokens=1).ok()


@case
def bb_100_tokens_are_counted():
    with Server(rate_limit=True, rate_per_minute=10, rate_burst=10) as s:
        assert s.admin("/admin/metrics").json["rate_limiter"]["current_tokens"] == 10
        began = time.monotonic()
        for _ in range(3):
            s.chat(max_tokens=1).ok()
        left = s.admin("/admin/metrics").json["rate_limiter"]["current_tokens"]
        most = 7 + (time.monotonic() - began) / 6 + 0.05
        assert 7 <= left <= most, (left, most)


@case
def bb_100_ten_threads_share_one_bucket():
    with Server(rate_limit=True, rate_per_minute=60, rate_burst=60) as s:
        began = time.monotonic()

        def some():
            return [s.complete(max_tokens=1).status for _ in range(20)]
        statuses = sum(in_parallel([some] * 10, 120), [])
        n = statuses.count(200)
        assert set(statuses) == {200, 429} and 60 <= n <= 62 + (time.monotonic() - began), (n, statuses)


@case
def each_key_has_its_own_bucket():
    keys = write("keys3", "k1\nk2\n")
    with Server(api_keys_file=keys, rate_limit=True, rate_per_minute=1, rate_burst=1) as s:
        one, two = {"Authorization": "Bearer k1"}, {"Authorization": "Bearer k2"}
        s.chat(max_tokens=1, headers=one).ok()
        s.chat(max_tokens=1, headers=one).fails(429)
        s.chat(max_tokens=1, headers=two).ok()


# ---- Metrics -----------------------------------------------------------------------------------------------------

@case
def promtool_likes_the_metrics():
    promtool = need_program("promtool")
    text = server().admin("/metrics").ok().body
    p = subprocess.run([promtool, "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=60)
    # Names that others have fixed: vLLM's hold colons, which the linter wants for recording rules only, and one of the
    # seed's has its unit cut short. Everything else must be without fault, and the text must parse (exit code 1: not).
    lint = [line for line in p.stdout.decode().splitlines() if line and not line.startswith(("vllm:", "mlx_model_memory_gb "))]
    assert not lint and p.returncode in (0, 3), p.stdout.decode()
    own = subprocess.run([promtool, "check", "metrics"], input=server().admin("/metrics?names=own").ok().body,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert own.returncode == 0, own.stdout.decode()


@case
def the_gateways_names_are_there():
    """vLLM's names, which the Gateway API inference extension reads."""
    names = {name for name, _ in server().metrics()}
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                 "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
                 "vllm:time_to_first_token_seconds_count", "vllm:e2e_request_latency_seconds_count",
                 "vllm:cache_config_info"):
        assert name in names, (name, sorted(names))


@case
def metrics_count_what_happens():
    from server_harness import data_url, image_part, picture, user
    s = server()
    s.chat(max_tokens=1).ok()
    s.wait_idle()
    before = s.metrics()

    def change(name, **labels):
        def total(m):
            return sum(v for (n, l), v in m.items() if n == name and labels.items() <= dict(l).items())
        return total(s.metrics()) - total(before)
    answers = [s.chat(f"Count me {i}.", max_tokens=5).ok().json for i in range(3)]
    answers.append(s.chat(user(image_part(data_url(picture(56, 56, 77))), "And this?"), max_tokens=5).ok().json)
    s.post("/v1/chat/completions", b"{", headers=JSON).fails(400)
    assert change("vllm:generation_tokens_total") == 20
    assert change("vllm:prompt_tokens_total") == sum(a["usage"]["prompt_tokens"] for a in answers)
    assert change("vllm:request_success_total") == 4
    assert change("vllm:time_to_first_token_seconds_count") == 4
    assert change("ocellus_requests_total") >= 5
    assert change("ocellus_requests_total", status="400") == 1
    assert s.metric("vllm:num_requests_running") == 0 and s.metric("vllm:num_requests_waiting") == 0
    names = " ".join(sorted({n for n, _ in s.metrics() if n.startswith("ocellus_")}))
    for word in ("queue", "fetch", "decode", "preprocess", "encode", "prefill", "ttft", "itl", "image", "cache", "restart",
                 "memory"):
        assert word in names or {"ttft": "first_token", "itl": "inter_token", "preprocess": "resize"}.get(word, word) in names, \
            f"no metric about {word}: {names}"


@case
def running_requests_are_gauged():
    s = server()
    st = s.stream("Tell me a long story.", max_tokens=150)
    assert st.next_text()
    assert s.metric("vllm:num_requests_running") == 1
    st.close()
    wait_until(lambda: s.metric("vllm:num_requests_running") == 0, 10, "the running gauge to fall")


@case
def logs_hold_no_pictures_and_no_prompts():
    from server_harness import data_url, image_part, picture, user
    s = server()
    url = data_url(picture(64, 64, 5))
    s.chat(user(image_part(url), "My secret is xyzzy-4711."), max_tokens=2).ok()
    s.chat(user(image_part(url[:-30] + "!!"), "My secret is xyzzy-4711."), max_tokens=2).fails(400)
    log = s.log()
    assert "xyzzy-4711" not in log and url[100:140] not in log
    assert log, "nothing is logged"


@case
def json_logs_are_json():
    with Server(log_json=True) as s:
        a = s.chat(max_tokens=2).ok()
        log = s.log()
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines and all(isinstance(x, dict) for x in lines)
    assert any(a.json["id"] in json.dumps(x) or "request" in json.dumps(x) for x in lines), log


if __name__ == "__main__":
    main()
