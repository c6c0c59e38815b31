"""ocellus serve over TLS: both ports, the same answers, certificates that are wrong, clients that misbehave."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time

from harness import BIN, TMP, environment, fails, ocellus, write
from server_harness import (FAULT_N, Server, Shared, ask, case, chunk_text, data_url, descriptors, heavy, image_part,
                            in_background, in_parallel, joined, long_answer, main, need_program, picture, private_bytes, read_all,
                            rested, seconds, status_of, user, wait_until)

HEADER_TIMEOUT_S = 10  # OC_LIMIT_HTTP_HEADER_TIMEOUT_MS
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def openssl(*args):
    subprocess.run([need_program("openssl"), *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def pair(name, kind="ec", *more):
    """(certificate, key) for localhost and 127.0.0.1, made when first asked for."""
    cert, key = os.path.join(TMP, name + ".crt"), os.path.join(TMP, name + ".key")
    if not os.path.exists(cert):
        sort = ["rsa:2048"] if kind == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("req", "-x509", "-newkey", *sort, "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more)
    return cert, key


def options(name="server", kind="ec"):
    cert, key = pair(name, kind)
    return dict(tls_cert=cert, tls_key=key)


server = Shared(tls_cert=lambda: pair("server")[0], tls_key=lambda: pair("server")[1], parallel=2)


def client(cert="server", **attributes):
    c = ssl.create_default_context(cafile=pair(cert)[0])
    for name, value in attributes.items():
        setattr(c, name, value)
    return c


class Hand:
    """A client whose bytes are carried by hand: what TLS says goes to the socket as the test wants it."""

    def __init__(self, s, context=None):
        self.socket = s.connect(bare=True, timeout=60)
        self.to, self.wire = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client()).wrap_bio(self.to, self.wire, server_hostname="localhost")

    def shake(self, send):
        while True:
            try:
                self.tls.do_handshake()
                send(self.wire.read())
                return self
            except ssl.SSLWantReadError:
                send(self.wire.read())
                data = self.socket.recv(65536)
                assert data, "the server has closed"
                self.to.write(data)

    def drip(self, data):
        for i in range(len(data)):
            self.socket.sendall(data[i:i + 1])


def failures(s, reason):
    return s.metric("ocellus_tls_handshake_failures_total", reason=reason)


# ---- Answers -----------------------------------------------------------------------------------------------------

@case
def both_ports_speak_tls():
    s = server()
    assert s.get("/health").ok().json["healthy"] is True
    assert s.admin("/admin/status").ok().json
    assert re.search(rf"listening on https://127\.0\.0\.1:{s.port} \(admin {s.admin_port}\)", s.log()), s.log()
    for admin in (False, True):
        with s.connect(admin) as c:
            assert c.version() == "TLSv1.3", c.version()
        with client(maximum_version=ssl.TLSVersion.TLSv1_2).wrap_socket(s.connect(admin, bare=True),
                                                                        server_hostname="localhost") as c:
            assert c.version() == "TLSv1.2" and c.compression() is None, (c.version(), c.compression())
            assert re.match(r"ECDHE-ECDSA-(AES\d+-GCM|CHACHA20)", c.cipher()[0]), c.cipher()


@case
def answers_are_those_of_plain_http():
    s = server()
    text = s.chat(max_tokens=30).ok().text
    st = s.stream(max_tokens=30)
    assert joined(st.chunks()) == text and st.finished
    with Server(parallel=2) as plain:
        assert plain.chat(max_tokens=30).ok().text == text


@case
def a_picture_as_data_url():
    a = server().chat(user(image_part(data_url(picture(400, 300, 7))), "What?"), max_tokens=5).ok()
    assert a.json["usage"]["prompt_tokens_details"]["image_tokens"] > 0, a
    big = os.urandom(3 * 2**20)  # through many records; no picture, so it is refused
    server().chat(user(image_part(data_url(big)), "What?"), max_tokens=5).fails(400)


@case
def an_answer_of_many_records():
    text = "word " * 60000
    a = server().post("/tokenize", {"prompt": text}, headers={"Content-Type": "application/json"})
    assert a.status == 200 and len(a.body) > 100000 and a.json["count"] > 50000, (a.status, len(a.body))


@case
def connections_are_kept():
    s = server()
    c = s.http()
    try:
        c.connect()
        kept = c.sock
        for i in range(5):
            c.request("POST", "/v1/chat/completions", json.dumps(ask(max_tokens=3)),
                      {"Content-Type": "application/json"})
            r = c.getresponse()
            assert r.status == 200 and json.loads(r.read())["choices"]
            assert c.sock is kept, f"another connection after {i} requests"
    finally:
        c.close()


@case
def the_end_is_told():
    """close_notify after the last answer: without it a client cannot tell the end from a cut."""
    with server().connect() as c:
        c.sendall(LAST)
        data = b""
        while True:
            more = c.recv(65536)  # raises ssl.SSLEOFError without close_notify
            if not more:
                break
            data += more
        assert status_of(data) == 200
        c.unwrap()


@case
def tickets_resume():
    s, context = server(), client()
    with context.wrap_socket(s.connect(bare=True), server_hostname="localhost") as c:
        c.sendall(LAST)
        assert status_of(read_all(c)[0]) == 200
        session = c.session
    with context.wrap_socket(s.connect(bare=True), server_hostname="localhost", session=session) as c:
        c.sendall(LAST)
        assert status_of(read_all(c)[0]) == 200 and c.session_reused


@case
def curl_works():
    s, cert = server(), pair("server")[0]
    curl = need_program("curl")

    def run(*args, url=f"https://localhost:{s.port}/v1/chat/completions"):
        return subprocess.run([curl, "-sS", "--max-time", str(seconds(60)), "--noproxy", "*", *args, url],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    body = ["-H", "Content-Type: application/json", "-d", json.dumps({**ask(max_tokens=5), "stream": True})]
    for more in ([], ["--http1.1"], ["--tls-max", "1.2"]):
        r = run("--cacert", cert, *more, *body)
        assert r.returncode == 0 and r.stdout.endswith(b"data: [DONE]\n\n"), r
    assert run(*body).returncode == 60, "curl must not trust it unasked"
    assert run("--cacert", cert, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", *body).returncode == 35


@case
def rsa_works_too():
    with Server(**options("rsa", "rsa")) as s:
        s.get("/health").ok()
        assert "WARN" not in s.log(), s.log()


# ---- Handshakes --------------------------------------------------------------------------------------------------

@case
def a_handshake_byte_by_byte():
    h = Hand(server())
    h.shake(h.drip)
    h.tls.write(LAST)
    h.drip(h.wire.read())
    data = b""
    while True:
        try:
            more = h.tls.read(65536)
            if not more:
                break
            data += more
        except ssl.SSLWantReadError:
            h.to.write(h.socket.recv(65536))
    assert status_of(data) == 200
    h.socket.close()


@case
def handshakes_that_never_end_are_closed():
    """Others are served meanwhile, and the deadline is one for all of the handshake, whatever drips."""
    s = server()
    before = failures(s, "timeout")
    halves = []
    for i in range(20):
        h = Hand(s)
        with contextlib.suppress(ssl.SSLWantReadError):
            h.tls.do_handshake()
        hello = h.wire.read()
        h.socket.sendall(hello if i % 2 else hello[:100])
        h.rest = b"" if i % 2 else hello[100:]
        halves.append(h)
    silent = s.connect(bare=True, timeout=60)
    began = time.monotonic()
    ended = 0
    while ended < len(halves):
        assert time.monotonic() - began < HEADER_TIMEOUT_S + seconds(30), f"{ended} of {len(halves)} were closed"
        s.get("/health").ok()
        ended = 0
        for h in halves:
            with contextlib.suppress(OSError):
                h.socket.sendall(h.rest[:1])
            h.rest = h.rest[1:]
            h.socket.settimeout(0.01)
            try:
                while h.socket.recv(65536):
                    pass
                ended += 1
            except socket.timeout:
                pass
            except OSError:
                ended += 1
    assert time.monotonic() - began > HEADER_TIMEOUT_S - 2
    assert read_all(silent) == (b"", True)
    assert failures(s, "timeout") == before + len(halves)
    for h in halves:
        h.socket.close()
    silent.close()


@case
def plain_http_is_told():
    s = server()
    before = failures(s, "plain_http")
    for i, request in enumerate((GET, b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 90000)):
        for admin in (False, True):
            with s.connect(admin, bare=True) as c:
                c.sendall(request)
                data, closed = read_all(c)
                assert closed and status_of(data) == 400 and b"https" in data, data
                assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["message"], data
    assert failures(s, "plain_http") == before + 4


@case
def old_versions_and_other_protocols_are_refused():
    s = server()
    before = failures(s, "refused")

    def refused(context, word):
        try:
            with context.wrap_socket(s.connect(bare=True), server_hostname="localhost"):
                raise AssertionError("it was let in")
        except ssl.SSLError as e:
            assert word in str(e).lower().replace("_", " "), e
    old = client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    refused(old, "alert protocol version")
    h2 = client()
    h2.set_alpn_protocols(["h2"])
    refused(h2, "no application protocol")
    weak = client(maximum_version=ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    refused(weak, "handshake failure")
    assert failures(s, "refused") == before + 3
    both = client()
    both.set_alpn_protocols(["h2", "http/1.1"])
    with both.wrap_socket(s.connect(bare=True), server_hostname="localhost") as c:
        assert c.selected_alpn_protocol() == "http/1.1"


@case
def failures_are_logged_for_who_looks():
    with Server(log_level="debug", **options()) as s:
        with contextlib.suppress(ssl.SSLError):
            ssl.create_default_context().wrap_socket(s.connect(bare=True), server_hostname="localhost")
        wait_until(lambda: failures(s, "refused") == 1, 30, "a failure that is counted")
        line = next(l for l in s.log().splitlines() if "handshake" in l)
        assert "DEBUG" in line and "peer=127.0.0.1" in line and "alert unknown ca" in line, line
        with s.connect(bare=True) as c:
            c.sendall(b"\x16\x03\x01")
        wait_until(lambda: failures(s, "gone") == 1, 30, "another")
        s.connect(bare=True).close()  # a look at the port is none
        s.get("/health").ok()
        assert failures(s, "refused") == failures(s, "gone") == 1 and failures(s, "timeout") == 0
    with Server(**options()) as s:
        with s.connect(bare=True) as c:
            c.sendall(b"\x16\x03\x01")
        wait_until(lambda: failures(s, "gone") == 1, 30, "a failure that is counted")
        assert "handshake" not in s.log(), s.log()


# ---- Files -------------------------------------------------------------------------------------------------------

def serve(*args):
    return ["serve", *args, "--port", "0", "--admin-port", "0", "--runtime-dir", os.path.join(TMP, "never")]


@case
def wrong_files_are_one_sentence():
    cert, key = pair("server")
    other_cert, other_key = pair("other")
    secret, der, weak, empty = (os.path.join(TMP, n) for n in ("secret.key", "der.crt", "weak.crt", "empty.pem"))
    openssl("pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", secret)
    openssl("x509", "-in", cert, "-outform", "DER", "-out", der)
    openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", weak + ".key", "-out", weak, "-subj", "/CN=x")
    write("empty.pem", "")
    half = write("half.key", open(key).read()[:120])
    for c, k, words in [
            ("/no/such.crt", key, ["/no/such.crt", "no such file"]),
            (cert, "/no/such.key", ["/no/such.key", "no such file"]),
            (TMP, key, [TMP, "cannot be read"]),
            (empty, key, [empty, "no PEM certificate"]),
            (der, key, [der, "no PEM certificate"]),
            (key, key, [key, "no PEM certificate"]),
            (cert, cert, [cert, "no PEM key"]),
            (cert, half, [half, "damaged"]),
            (cert, secret, [secret, "encrypted", "openssl pkey"]),
            (cert, other_key, [other_key, cert, "does not belong"]),
            (weak, weak + ".key", [weak, "too small"])]:
        fails(2, words, *serve("--tls-cert", c, "--tls-key", k))
    for args, word in ((("--tls-cert", cert), "tls_key"), (("--tls-key", key), "tls_cert")):
        r = ocellus(*serve(*args))
        assert r.code == 2 and f"given without {word}" in r.err, r
    assert not os.path.exists(os.path.join(TMP, "never")), "nothing was begun"


@case
def an_unreadable_key():
    cert, key = pair("server")
    locked = shutil.copy(key, os.path.join(TMP, "locked.key"))
    os.chmod(locked, 0)
    if os.access(locked, os.R_OK):  # root reads everything: as nobody the server has to be started by hand
        def drop():
            os.setgid(65534)
            os.setuid(65534)
        where = os.path.join(TMP, "nobody")
        os.makedirs(where, exist_ok=True)
        os.chmod(where, 0o777)
        old = os.stat(TMP).st_mode
        os.chmod(TMP, 0o755)
        try:
            probe = subprocess.run(["test", "-x", BIN], preexec_fn=drop)
            if probe.returncode:
                return  # the build lies where nobody may go
            p = subprocess.run([BIN, *serve("--tls-cert", cert, "--tls-key", locked)], preexec_fn=drop, cwd=where,
                               env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds(60))
        finally:
            os.chmod(TMP, old)
        assert p.returncode == 2 and b"locked.key" in p.stderr and b"ermission denied" in p.stderr, p
    else:
        fails(2, ["locked.key", "ermission denied"], *serve("--tls-cert", cert, "--tls-key", locked))


@case
def an_expired_certificate_is_served_and_warned_of():
    cert, key = os.path.join(TMP, "old.crt"), pair("server")[1]
    openssl("req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", cert + ".csr")
    openssl("x509", "-req", "-in", cert + ".csr", "-signkey", key, "-days", "-1", "-out", cert)
    with Server(tls_cert=cert, tls_key=key, wait=False) as s:
        s.tls = ssl._create_unverified_context()
        s.wait_ready()
        assert re.search(r"WARN .*certificate expired at \d{4}-\d\d-\d\d.*old\.crt", s.log()), s.log()


@case
def where_the_files_may_be_named():
    cert, key = pair("server")
    path = write("tls.yaml", f"tls_cert: {cert}\n")
    r = ocellus("serve", "--print-config", "--config", path, env=environment(OCELLUS_TLS_KEY=key))
    assert r.code == 0 and re.search(rf'tls_cert: "{cert}" .*tls\.yaml', r.out), r
    assert re.search(rf'tls_key: "{key}" .*OCELLUS_TLS_KEY', r.out), r
    with Server(args=["--config", path], env={"OCELLUS_TLS_KEY": key}, wait=False) as s:
        s.tls = client()
        s.wait_ready()


def shown(s, cert):
    """Whether a new connection is shown this certificate."""
    try:
        with client(cert).wrap_socket(s.connect(bare=True), server_hostname="localhost"):
            return True
    except ssl.SSLCertVerificationError:
        return False


@case
def hangup_reads_the_files_again():
    """SIGHUP opens the log again, and new connections get the new certificate; old ones go on."""
    cert, key = (shutil.copy(f, os.path.join(TMP, "hup" + os.path.splitext(f)[1])) for f in pair("server"))
    log = os.path.join(TMP, "hup.log")
    with Server(tls_cert=cert, tls_key=key, log_file=log) as s, s.connect() as old:
        assert shown(s, "server") and not shown(s, "other")
        old.sendall(GET)
        assert old.recv(65536).startswith(b"HTTP/1.1 200 ")
        for was, new in zip((cert, key), pair("other")):
            shutil.copy(new, was)
        os.rename(log, log + ".1")
        s.process.send_signal(signal.SIGHUP)
        wait_until(lambda: shown(s, "other"), 30, "the new certificate")
        assert not shown(s, "server") and os.path.exists(log)
        old.sendall(LAST)
        assert read_all(old)[0].startswith(b"HTTP/1.1 200 ")
        s.tls = client("other")
        write("hup.key", "no key at all\n")
        s.process.send_signal(signal.SIGHUP)

        def told():
            with open(log, encoding="utf-8") as f:
                return "hup.key" in f.read()
        wait_until(told, 30, "a line about the key in the log")
        assert shown(s, "other")
        s.get("/health").ok()


# ---- Clients that misbehave --------------------------------------------------------------------------------------

@case
def many_connections_leave_nothing():
    s = server()
    s.chat(max_tokens=1).ok()
    s.wait_idle()

    def sockets():
        return sum(t.startswith("socket:") for t in descriptors(s.pid))

    def round_of(n):
        """n connections at once, each with a request; half end in order, half are torn."""
        conns = in_parallel([s.connect] * n)
        for c in conns:
            c.sendall(GET)
        for c in conns:
            assert status_of(c.recv(65536)) == 200
        for i, c in enumerate(conns):
            if i % 2:
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
    before = rested(sockets)
    round_of(200)
    round_of(200)
    first = private_bytes(s.pid)
    for _ in range(4):
        round_of(200)
    wait_until(lambda: sockets() == before, 30, lambda: f"{before} sockets, now {sockets()}")
    heavy()
    grown = private_bytes(s.pid) - first
    assert grown < 4 * 2**20, f"{grown} bytes more after 800 connections"


@case
def idle_connections_are_small():
    heavy()
    s = Server(**options())  # a new one: others have memory left of what their connections took
    body = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000
    conns = [s.connect() for _ in range(50)]
    before = private_bytes(s.pid)
    conns += [s.connect() for _ in range(400)]
    for c in conns:
        c.sendall(body)
        assert c.recv(65536)
    each = (private_bytes(s.pid) - before) / 400
    assert s.metric("ocellus_connections", port="main") == 450
    print(f"{each / 1024:.1f} KiB for each idle connection")
    assert each < 64 * 1024, each
    for c in conns:
        c.close()
    s.stop()


@case
def a_slow_reader_stops_nobody():
    """One that reads nothing: its stream is held and then cut, memory stays bounded, the others flow."""
    s = server()
    n_gone = s.metric("ocellus_clients_gone_total")
    before = private_bytes(s.pid)
    slow = s.slow_reader(long_answer())
    try:
        for i in range(5):
            assert len(s.stream(f"Quick {i}", max_tokens=20).chunks()) > 3
        wait_until(s.is_idle, 120, "the slow stream to be cut")
        # For what is held for it, or, where tokens come slowly, for the time without progress.
        assert s.metric("ocellus_clients_gone_total") == n_gone + 1
        assert private_bytes(s.pid) - before < 64 * 2**20
    finally:
        slow.close()


@case
def a_reader_with_pauses_gets_all():
    s = server()
    whole = joined(s.stream("Pauses", max_tokens=300).chunks())
    with s.slow_reader(ask("Pauses", max_tokens=300), version="1.0") as c:
        data = b""
        while True:
            more = c.recv(1000)
            if not more:
                break
            data += more
    events = [e[6:] for e in data.partition(b"\r\n\r\n")[2].decode().split("\n\n") if e.startswith("data: {")]
    assert "".join(chunk_text(json.loads(e)) for e in events) == whole


@case
def clients_that_vanish_cancel_their_jobs():
    s = server()

    def torn(st):
        st.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        st.close()

    def close_notify(st):
        st.connection.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
            st.connection.sock.unwrap()

    def half_close(st):
        st.connection.sock.shutdown(socket.SHUT_WR)

    def garbage(st):
        os.write(st.connection.sock.fileno(), b"no record of TLS at all")

    for leave in (lambda st: st.close(), torn, close_notify, half_close, garbage):
        for _ in range(FAULT_N):
            st = s.stream("A long story.", max_tokens=3500)
            assert st.next_text()
            gone = s.metric("ocellus_clients_gone_total")
            leave(st)
            wait_until(s.is_idle, 30, f"the end of a stream after {leave}")
            assert s.metric("ocellus_clients_gone_total") == gone + 1
            rested(lambda: s.metric("ocellus_output_tokens_total"), 0.3)  # tokens are made for nobody
            st.close()
    assert s.chat(max_tokens=3).ok()


@case
def a_flood_of_garbage():
    s = server()
    rng = random.Random(3)
    before = rested(lambda: len(descriptors(s.pid)))
    for i in range(200 * FAULT_N):
        with s.connect(bare=True) as c, contextlib.suppress(OSError):
            head = b"" if i % 2 else b"\x16\x03\x01" + struct.pack(">H", rng.randint(1, 2000))
            c.sendall(head + rng.randbytes(rng.randint(1, 2000)))
    s.get("/health").ok()
    wait_until(lambda: len(descriptors(s.pid)) <= before, 30,
               lambda: f"{before} descriptors, now {len(descriptors(s.pid))}")


@case
def a_shutdown_finishes_the_streams():
    s = Server(**options("server"))
    half = s.connect(bare=True)
    half.sendall(b"\x16\x03\x01")
    st = s.stream("Before the end.", max_tokens=200)
    assert st.next_text()
    idle = s.connect()
    idle.sendall(GET)
    assert status_of(idle.recv(65536)) == 200
    s.expected_alive = False
    s.children()
    s.process.send_signal(signal.SIGTERM)
    rest = in_background(st.rest)
    rest(60)
    assert st.finished
    assert idle.recv(1) == b"", "close_notify, and the end"
    assert s.process.wait(timeout=seconds(60)) == 0
    s.check_no_orphans()
    half.close()
    idle.close()


if __name__ == "__main__":
    main()
