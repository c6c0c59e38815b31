#!/usr/bin/env python3
"""What the HTTP server accepts and refuses, beside nginx.

Every request of FORBIDDEN breaks a rule of RFC 9112 or RFC 9110 (or of RFC 3986 for targets): the server must answer none
of them with success, and close the connection, so that nothing behind it can be taken for another request. Where nginx
takes one, the test says so: that is not nginx's fault (the RFC allows many leniencies), but it is why the server must be
strict behind a proxy. Every request of VALID must be answered with 200 by both.
"""
import concurrent.futures
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import harness
from harness import case

ECHO = os.path.join(os.path.dirname(harness.BIN), "http_echo")
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
WAIT_S = 8

H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n0\r\n\r\n"

VALID = [
    ("a plain GET", GET + b"\r\n"),
    ("an empty line first", b"\r\n" + GET + b"\r\n"),
    ("a query", b"GET /a/b;c=1?x=%20y&z=/? HTTP/1.1\r\n" + H + b"\r\n"),
    ("an absolute target", b"GET http://a/b?c HTTP/1.1\r\n" + H + b"\r\n"),
    ("a port in Host", b"GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n"),
    ("an IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n"),
    ("any case in names", b"GET / HTTP/1.1\r\nhOsT: a\r\ncOnNeCtIoN: CLOSE\r\n\r\n"),
    ("tabs around a value", GET + b"X:\t a\tb \t\r\n\r\n"),
    ("an empty value", GET + b"X:\r\n\r\n"),
    ("bytes over 127 in a value", GET + b"X: \xe2\x82\xac\r\n\r\n"),
    ("Content-Length", POST + b"Content-Length: 5\r\n\r\nhello"),
    ("Content-Length with zeros", POST + b"Content-Length: 005\r\n\r\nhello"),
    ("Content-Length 0", POST + b"Content-Length: 0\r\n\r\n"),
    ("POST without a body", POST + b"\r\n"),
    ("GET with a body", GET + b"Content-Length: 2\r\n\r\nhi"),
    ("chunks", CHUNKED + b"5\r\nhello\r\n1\r\n!" + END),
    ("no chunk but the last", CHUNKED + b"0\r\n\r\n"),
    ("upper-case hex sizes", CHUNKED + b"A\r\n0123456789" + END),
    ("zeros before a size", CHUNKED + b"005\r\nhello" + END),
    ("a chunk extension", CHUNKED + b"5;a=b\r\nhello" + END),
    ("a quoted chunk extension", CHUNKED + b"5;a=\"b c\"\r\nhello" + END),
    ("a trailer field", CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    ("Chunked in another case", POST + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello" + END),
    ("Expect", POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    ("DELETE", b"DELETE /x HTTP/1.1\r\n" + H + b"\r\n"),
]

VALID_BUT_NOT_FOR_NGINX = [
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n"),
    ("a method of signs", b"A!#$%&'*+-.^_`|~9 / HTTP/1.1\r\n" + H + b"\r\n"),
]

FORBIDDEN = [
    ("LF first", b"\n" + GET + b"\r\n"),
    ("blank before the method", b" " + GET + b"\r\n"),
    ("tab after the method", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n"),
    ("two blanks after the method", b"GET  / HTTP/1.1\r\n" + H + b"\r\n"),
    ("two blanks before the version", b"GET /  HTTP/1.1\r\n" + H + b"\r\n"),
    ("blank after the version", b"GET / HTTP/1.1 \r\n" + H + b"\r\n"),
    ("method with parenthesis", b"G(T / HTTP/1.1\r\n" + H + b"\r\n"),
    ("method with NUL", b"G\0T / HTTP/1.1\r\n" + H + b"\r\n"),
    ("method with a byte over 127", b"G\xc3\xa9T / HTTP/1.1\r\n" + H + b"\r\n"),
    ("no target", b"GET HTTP/1.1\r\n" + H + b"\r\n"),
    ("no version", b"GET /\r\n" + H + b"\r\n"),
    ("version http/1.1", b"GET / http/1.1\r\n" + H + b"\r\n"),
    ("version HTTP/1.10", b"GET / HTTP/1.10\r\n" + H + b"\r\n"),
    ("version HTTP/01.1", b"GET / HTTP/01.1\r\n" + H + b"\r\n"),
    ("version HTTP/1", b"GET / HTTP/1\r\n" + H + b"\r\n"),
    ("version HTTP/1.", b"GET / HTTP/1.\r\n" + H + b"\r\n"),
    ("version HTTP/2.0", b"GET / HTTP/2.0\r\n" + H + b"\r\n"),
    ("version XTTP/1.1", b"GET / XTTP/1.1\r\n" + H + b"\r\n"),
    ("LF ends the request line", b"GET / HTTP/1.1\n" + H + b"\r\n"),
    ("CR ends the request line", b"GET / HTTP/1.1\r" + H + b"\r\n"),
    ("CR CR LF ends the request line", b"GET / HTTP/1.1\r\r\n" + H + b"\r\n"),
    ("target with a tab", b"GET /a\tb HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with NUL", b"GET /a\0b HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a control byte", b"GET /a\x01b HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with DEL", b"GET /a\x7fb HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a byte over 127", b"GET /\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a fragment", b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a backslash", b"GET /a\\b HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with quotes", b"GET /\"a\" HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with angle brackets", b"GET /<a> HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with braces", b"GET /{a} HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a bar", b"GET /a|b HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with a bad escape", b"GET /%zz HTTP/1.1\r\n" + H + b"\r\n"),
    ("target with half an escape", b"GET /%4 HTTP/1.1\r\n" + H + b"\r\n"),
    ("query with a bad escape", b"GET /?a=%4x HTTP/1.1\r\n" + H + b"\r\n"),
    ("target without a slash", b"GET a HTTP/1.1\r\n" + H + b"\r\n"),
    ("GET *", b"GET * HTTP/1.1\r\n" + H + b"\r\n"),
    ("absolute target without a host", b"GET http:///a HTTP/1.1\r\n" + H + b"\r\n"),
    ("absolute target with a bad port", b"GET http://a:b/ HTTP/1.1\r\n" + H + b"\r\n"),
    ("absolute target with a user", b"GET http://u:p@a/ HTTP/1.1\r\n" + H + b"\r\n"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    ("absolute target, no Host", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    ("two Hosts", GET + b"Host: a\r\n\r\n"),
    ("two different Hosts", GET + b"Host: b\r\n\r\n"),
    ("Host with a blank", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    ("Host with an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    ("Host with a byte over 127", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"),
    ("blank before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("folded field", GET + b"X: a\r\n b\r\n\r\n"),
    ("field folded with a tab", GET + b"X: a\r\n\tb\r\n\r\n"),
    ("blank before the colon", GET + b"X : a\r\n\r\n"),
    ("tab before the colon", GET + b"X\t: a\r\n\r\n"),
    ("blank in a name", GET + b"X Y: a\r\n\r\n"),
    ("no colon", GET + b"X\r\n\r\n"),
    ("no name", GET + b": a\r\n\r\n"),
    ("name with NUL", GET + b"X\0: a\r\n\r\n"),
    ("name with parenthesis", GET + b"X(: a\r\n\r\n"),
    ("name with a byte over 127", GET + b"X\x80: a\r\n\r\n"),
    ("value with NUL", GET + b"X: a\0b\r\n\r\n"),
    ("value with a control byte", GET + b"X: a\x01b\r\n\r\n"),
    ("value with DEL", GET + b"X: a\x7fb\r\n\r\n"),
    ("value with CR", GET + b"X: a\rb\r\n\r\n"),
    ("value with CR at its end", GET + b"X: a\r\r\n\r\n"),
    ("LF ends a field", GET + b"X: a\nY: b\r\n\r\n"),
    ("LF ends the head", GET + b"\n"),
    ("LF LF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\n"),
    ("two Content-Lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("Content-Length twice the same", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("Content-Length list", POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    ("Content-Length +5", POST + b"Content-Length: +5\r\n\r\nhello"),
    ("Content-Length -5", POST + b"Content-Length: -5\r\n\r\nhello"),
    ("Content-Length 0x5", POST + b"Content-Length: 0x5\r\n\r\nhello"),
    ("Content-Length 5.0", POST + b"Content-Length: 5.0\r\n\r\nhello"),
    ("Content-Length 5 5", POST + b"Content-Length: 5 5\r\n\r\nhello"),
    ("Content-Length empty", POST + b"Content-Length:\r\n\r\nhello"),
    ("Content-Length in words", POST + b"Content-Length: five\r\n\r\nhello"),
    ("Content-Length of 2^64 + 5", POST + b"Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("Content-Length and chunked", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked and Content-Length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("chunked twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, chunked", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked, identity", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("identity", POST + b"Transfer-Encoding: identity\r\n\r\n"),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("'chunked'", POST + b"Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n"),
    ("VT chunked", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("blank before the colon of chunked", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunk size empty", CHUNKED + b"\r\nhello" + END),
    ("chunk size 0x5", CHUNKED + b"0x5\r\nhello" + END),
    ("chunk size +5", CHUNKED + b"+5\r\nhello" + END),
    ("chunk size -5", CHUNKED + b"-5\r\nhello" + END),
    ("chunk size g", CHUNKED + b"g\r\nhello" + END),
    ("chunk size of 2^64 + 5", CHUNKED + b"10000000000000005\r\nhello" + END),
    ("blank before a chunk size", CHUNKED + b" 5\r\nhello" + END),
    ("blank after a chunk size", CHUNKED + b"5 \r\nhello" + END),
    ("LF after a chunk size", CHUNKED + b"5\nhello" + END),
    ("CR after a chunk size", CHUNKED + b"5\rhello" + END),
    ("LF after chunk data", CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    ("nothing after chunk data", CHUNKED + b"5\r\nhello0\r\n\r\n"),
    ("chunk longer than its size", CHUNKED + b"4\r\nhello" + END),
    ("chunk extension without a name", CHUNKED + b"5;\r\nhello" + END),
    ("chunk extension with LF", CHUNKED + b"5;a\n\r\nhello" + END),
    ("chunk extension with NUL", CHUNKED + b"5;a\0\r\nhello" + END),
    ("chunk extension without its value", CHUNKED + b"5;a=\r\nhello" + END),
    ("chunk extension with an open quote", CHUNKED + b"5;a=\"b\r\nhello" + END),
    ("LF LF after the last chunk", CHUNKED + b"5\r\nhello\r\n0\n\n"),
    ("LF ends the trailer", CHUNKED + b"5\r\nhello\r\n0\r\n\n"),
    ("trailer without a colon", CHUNKED + b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
    ("trailer with a blank before the colon", CHUNKED + b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
    ("folded trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
    ("trailer with NUL", CHUNKED + b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
]

NGINX_CONF = """
daemon off; master_process off; pid {tmp}/pid; error_log {tmp}/error.log crit; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 2s; lingering_close off;
  client_body_temp_path {tmp}/body; proxy_temp_path {tmp}/proxy; fastcgi_temp_path {tmp}/fastcgi;
  uwsgi_temp_path {tmp}/uwsgi; scgi_temp_path {tmp}/scgi;
  server {{ listen unix:{tmp}/front; location / {{ proxy_pass http://unix:{tmp}/back:; proxy_http_version 1.1; }} }}
  server {{ listen unix:{tmp}/back; location / {{ return 200 "read"; }} }}
}}
"""


class Server:
    """A server process; connect() gives a fresh connection to it."""

    def __init__(self, args, **kw):
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, **kw)

    def close(self):
        self.process.stdin.close()
        if not self.ends_with_stdin:
            self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Echo(Server):
    ends_with_stdin = True

    def __init__(self):
        super().__init__([ECHO], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)


class Nginx(Server):
    ends_with_stdin = False

    def __init__(self):
        self.tmp = tempfile.mkdtemp(dir=harness.TMP)
        conf = harness.write(os.path.join(self.tmp, "conf"), NGINX_CONF.format(tmp=self.tmp))
        super().__init__([NGINX, "-p", self.tmp, "-e", os.path.join(self.tmp, "error.log"), "-c", conf],
                         stderr=subprocess.PIPE)
        for _ in range(100):
            try:
                self.connect().close()
                return
            except OSError:
                assert self.process.poll() is None, self.process.stderr.read().decode()
                time.sleep(0.05)
        raise AssertionError("nginx does not listen")

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(WAIT_S)
        s.connect(os.path.join(self.tmp, "front"))
        return s


def ask(server, request, finish):
    """Sends one request and reads to the end of the connection: (statuses, all bytes, was it closed).

    With `finish` it stops when one whole answer has come.
    """
    data, closed = b"", False
    with server.connect() as s:
        s.sendall(request)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                s.settimeout(max(0.01, deadline - time.monotonic()))
                piece = s.recv(65536)
            except ConnectionResetError:
                piece = b""
            except TimeoutError:
                break
            if not piece:
                closed = True
                break
            data += piece
            if finish and whole(data):
                break
    return [int(x) for x in re.findall(rb"^HTTP/1\.[01] (\d\d\d)", data, re.M) if x != b"100"], data, closed


def whole(data):
    data = re.sub(rb"^HTTP/1\.1 100 Continue\r\n\r\n", b"", data)
    head, sep, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return bool(sep and length and len(body) >= int(length.group(1)))


def ask_all(server, requests, finish):
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        return list(pool.map(lambda r: ask(server, r[1], finish), requests))


def with_server(make):
    """A case that gets a running server."""
    def wrap(fn):
        def run():
            server = make()
            try:
                fn(server)
            finally:
                server.close()
            assert server.process.returncode == 0, f"it ended with {server.process.returncode}"
        run.__name__ = fn.__name__
        return case(run)
    return wrap


def nginx_or_skip():
    if not os.access(NGINX, os.X_OK):
        raise harness.Skip("SKIPPED: nginx is not installed (apt-get install nginx-light): no comparison")
    return Nginx()


def accepted(statuses):
    return any(200 <= s < 300 for s in statuses)


@with_server(Echo)
def test_valid_requests_are_answered(server):
    requests = VALID + VALID_BUT_NOT_FOR_NGINX
    wrong = [f"{name}: {data[:200]!r}" for (name, _), (statuses, data, _) in
             zip(requests, ask_all(server, requests, True)) if statuses != [200]]
    assert not wrong, "\n".join(wrong)


@with_server(Echo)
def test_what_was_read_is_what_was_sent(server):
    for request, wanted in [
            (b"PUT /a%20b?c=d&e HTTP/1.1\r\n" + H + b"Content-Length: 3\r\n\r\nabc",
             {"method": "PUT", "path": "/a%20b", "query": "c=d&e", "body_bytes": 3}),
            (CHUNKED + b"5\r\nhello\r\n1\r\n!" + END, {"method": "POST", "path": "/", "query": "", "body_bytes": 6})]:
        _, data, _ = ask(server, request, True)
        assert json.loads(data.partition(b"\r\n\r\n")[2]) == wanted, data
    _, data, _ = ask(server, b"GET /stream HTTP/1.1\r\nConnection: close\r\n" + H + b"\r\n", False)
    assert data.count(b"\r\n1\r\n{\r\n") == 1 and data.endswith(b"\r\n1\r\n\n\r\n0\r\n\r\n"), data


@with_server(Echo)
def test_forbidden_requests_are_refused(server):
    assert len(FORBIDDEN) >= 80 and len({r for _, r in FORBIDDEN}) == len(FORBIDDEN)
    # A request stands behind each, as a smuggler would put one there.
    requests = [(name, r + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") for name, r in FORBIDDEN]
    wrong = []
    for (name, _), (statuses, data, closed) in zip(requests, ask_all(server, requests, False)):
        if len(statuses) != 1 or not 400 <= statuses[0] < 600 or not closed:
            wrong.append(f"{name}: {'closed' if closed else 'open'} after {data[:300]!r}")
    assert not wrong, f"{len(wrong)} of {len(FORBIDDEN)} are not refused:\n" + "\n".join(wrong)
    print(f"{len(FORBIDDEN)} forbidden requests: none accepted")


@with_server(nginx_or_skip)
def test_nginx_answers_the_valid_ones(server):
    wrong = [f"{name}: {data[:200]!r}" for (name, _), (statuses, data, _) in
             zip(VALID, ask_all(server, VALID, True)) if statuses != [200]]
    assert not wrong, "\n".join(wrong)


@with_server(nginx_or_skip)
def test_nginx_beside_the_forbidden_ones(server):
    """No verdict about nginx; but it must have run, so it refuses what every server refuses."""
    answers = ask_all(server, FORBIDDEN, True)
    taken = [name for (name, _), (statuses, _, _) in zip(FORBIDDEN, answers) if accepted(statuses)]
    print(f"nginx accepts {len(taken)} of {len(FORBIDDEN)} forbidden requests: " + "; ".join(taken))
    refused = [statuses for _, (statuses, _, _) in zip(FORBIDDEN, answers) if statuses == [400]]
    assert len(refused) > len(FORBIDDEN) // 4, answers


if __name__ == "__main__":
    harness.main()
