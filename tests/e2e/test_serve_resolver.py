"""ocellus serve: name servers that never answer. Runs in a network of its own, where it is the name server."""
import ctypes
import fcntl
import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

from harness import Skip, write
from server_harness import (Server, ask, case, data_url, image_part, in_background, in_parallel, main, need_program, picture, user,
                            wait_until)

INSIDE = "E2E_OWN_NETWORK"
WHERE = "messages[0].content[0].image_url"
MS_BIND, SIOCSIFFLAGS, IFF_UP = 4096, 0x8914, 1
QUERIES = []


def enter():
    """Loopback up, our name server in resolv.conf, nothing but files and DNS asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    libc = ctypes.CDLL(None, use_errno=True)
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n"), ("nsswitch.conf", "hosts: files dns\n"),
                       ("hosts", "127.0.0.1 localhost here.test\n")):
        if libc.mount(write("ns-" + name, text).encode(), f"/etc/{name}".encode(), None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), f"/etc/{name} cannot be replaced")


def take_queries():
    """Hears every query and answers none."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))

    def hear():
        while True:
            QUERIES.append(sock.recv(512))

    threading.Thread(target=hear, daemon=True).start()


def serve_pictures():
    """The base URL of a web server with pictures."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = picture(56, 56, int(self.path.strip("/")))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    return f"http://here.test:{web.server_port}"


def look(s, url, **how):
    return s.chat(user(image_part(url), "What?"), max_tokens=2, **how)


def unanswered(host):
    return sum(host.encode() in q for q in QUERIES)


@case
def a_silent_name_server_costs_its_request_only():
    """The deadline of a fetch covers the look-up; meanwhile others are served."""
    base = serve_pictures()
    with Server(allow_private_images=True, fetch_timeout="3s", parallel=8) as s:
        look(s, f"{base}/1").ok()
        began = time.monotonic()
        silent = in_background(lambda: look(s, "http://silent.test/x.png"))
        wait_until(lambda: unanswered("silent"), 20, "the query")
        answers = in_parallel([lambda: s.chat(max_tokens=2), lambda: look(s, f"{base}/2"), lambda: look(s, data_url(picture(56, 56, 3))),
                               lambda: s.get("/health")])
        for a in answers:
            a.ok()
        assert not silent.is_done() or time.monotonic() - began > 3, "it did not wait for its name server"
        a = silent(60)
        assert time.monotonic() - began > 2.5
        a.fails(400, param=WHERE, words="timeout")
        look(s, f"{base}/4").ok()
        s.wait_idle(20)


@case
def a_client_that_leaves_ends_the_look_up():
    with Server(allow_private_images=True, fetch_timeout="300s") as s:
        body = json.dumps(ask(user(image_part("http://leaving.test/x.png")))).encode()
        with s.connect() as c:
            c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: unanswered("leaving"), 20, "the query")
        s.wait_idle(60)


@case
def a_silent_name_server_does_not_hold_up_the_end():
    with Server(allow_private_images=True, fetch_timeout="300s", drain_timeout="1s") as s:
        waits = in_background(lambda: look(s, "http://holding.test/x.png", timeout=120))
        wait_until(lambda: unanswered("holding"), 20, "the query")
        s.stop()  # which must end with 0 within its own limit
        waits(60).fails(503)


def outside():
    """Runs this file in a network and with files of its own; where that is not allowed, its cases are skipped."""
    command = [need_program("unshare"), "-Urmn", sys.executable, os.path.abspath(__file__)]
    if subprocess.run([*command[:2], "true"], stderr=subprocess.DEVNULL).returncode:
        raise Skip("no namespaces for users, files and networks here")
    sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode)


if __name__ == "__main__":
    if INSIDE not in os.environ:
        try:
            outside()
        except Skip as e:
            print(f"{e}\n[  SKIPPED ] test_serve_resolver")
            sys.exit(0)
    enter()
    take_queries()
    main()
