"""What tests of `ocellus worker` and `ocellus image-worker` share: frames over a socket pair, messages, starting.

Mirrors src/ipc/messages.h in Python, written by hand: a second opinion about what stands where.
"""
import array
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

from harness import BIN, TIMEOUT_S, environment

(READY, REFUSED, JOB, CANCEL, STAGE, TOKENS, DONE, SHUTDOWN, LOOK, SEEN, UNSEEN) = range(1, 12)
ENCODE, PREFILL, DECODE = range(3)
STOP, LENGTH, CANCELLED, ERROR = range(4)
BOARD = struct.Struct("<QQIIQIIIIIIQQQQQQQQQQQQQQQ")
BOARD_FIELDS = ("heartbeat_ns n_steps doing pad job n_running n_waiting kv_pages kv_pages_used kv_pages_cached pad2 n_prefix_queries "
                "n_prefix_hits n_embed_queries n_embed_hits embed_bytes embed_evictions kv_evictions n_prompt_tokens "
                "n_output_tokens n_image_tokens n_drafts n_drafted n_accepted decode_mtok_s rss_bytes").split()
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


class Ended(Exception):
    """The other side closed the socket."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        s = struct.Struct("<" + fmt)
        values = s.unpack_from(self.data, self.at)
        self.at += s.size
        return values

    def one(self, fmt):
        return self.take(fmt)[0]

    def text(self):
        n = self.one("I")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def raw(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def end(self):
        assert self.at == len(self.data), f"{len(self.data) - self.at} bytes are left"


class Channel:
    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(TIMEOUT_S)

    def send(self, kind, ident=0, payload=b"", fds=()):
        head = struct.pack("<IHHQ", len(payload), kind, len(fds), ident)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = head + payload
        n = self.sock.sendmsg([data], rights)
        if n < len(data):
            self.sock.sendall(data[n:])

    def _exactly(self, n, fds):
        data = b""
        while len(data) < n:
            try:
                part, extra, flags, _ = self.sock.recvmsg(n - len(data), socket.CMSG_LEN(64 * 4))
            except ConnectionResetError:
                raise Ended from None
            assert not flags & socket.MSG_CTRUNC
            for _, _, raw in extra:
                fds.extend(array.array("i", raw[:len(raw) - len(raw) % 4]))
            if not part:
                raise Ended
            data += part
        return data

    def receive(self):
        """(type, id, payload, descriptors)"""
        fds = []
        n, kind, n_fds, ident = struct.unpack("<IHHQ", self._exactly(16, fds))
        payload = self._exactly(n, fds)
        assert len(fds) == n_fds, (kind, n_fds, fds)
        return kind, ident, payload, fds

    def close(self):
        self.sock.close()


def picture_rules(r):
    return dict(zip("kind patch merge temporal resample max_tokens min_pixels max_pixels rescale".split(), r.take("6i2qd")),
                mean=r.take("3d"), std=r.take("3d"))


def put_rules(rules):
    return struct.pack("<6i2qd3d3d", *[rules[k] for k in "kind patch merge temporal resample max_tokens min_pixels max_pixels rescale".split()],
                       *rules["mean"], *rules["std"])


PLAN = struct.Struct("<3id3d3d9i")


class Plan:
    def __init__(self, raw):
        self.raw = raw
        v = PLAN.unpack(raw)
        self.width, self.height = v[:2]
        self.grid = v[13:16]
        self.n_patches, self.patch_dim, self.n_tokens = v[16:]


def read_ready(payload):
    r = Reader(payload)
    m = {"version": r.one("i"), "architecture": r.text(), "family": r.text(), "isa": r.text()}
    m.update((name, r.text()) for name in ("device", "device_name", "device_why"))
    m["throughput"] = r.one("i")
    m.update(zip("n_threads n_vocab ctx_tokens model_ctx_tokens n_sessions kv_tokens image_max_tokens image_token".split(), r.take("8i")))
    m.update(zip("n_params weight_bytes kv_bytes workspace_bytes decode_weight_bytes device_bytes".split(), r.take("6Q")))
    m["load_ms"] = r.one("d")
    m["rules"] = picture_rules(r)
    r.end()
    return m


def read_error(payload):
    """REFUSED and UNSEEN: (error, sentence)."""
    r = Reader(payload)
    m = r.one("i"), r.text()
    r.end()
    return m


def read_tokens(payload):
    """[(token, logprob, [(token, logprob), ...]), ...]"""
    r = Reader(payload)
    picks = []
    for _ in range(r.one("I")):
        token, logprob, n = r.take("ifI")
        picks.append((token, logprob, [r.take("if") for _ in range(n)]))
    r.end()
    return picks


def read_done(payload):
    r = Reader(payload)
    m = {"finish": r.one("i"), "err": r.one("i"), "message": r.text()}
    m.update(zip("n_prompt n_cached n_image n_output n_image_cached".split(), r.take("5i")))
    m.update(zip("queue_ms encode_ms prefill_ms decode_ms".split(), r.take("4d")))
    r.end()
    return m


def read_seen(payload):
    r = Reader(payload)
    m = dict(zip(("width", "height"), r.take("2i")), plan=Plan(r.raw(PLAN.size)), digest=r.raw(32))
    m.update(zip(("decode_ms", "resize_ms"), r.take("2d")))
    r.end()
    return m


def put_look(rules, max_tokens=0, max_bytes=0, max_pixels=0, max_side=0):
    return put_rules(rules) + struct.pack("<2qi2Qi", 0, 0, max_tokens, max_bytes, max_pixels, max_side)


def put_job(tokens, pictures=(), temperature=0.0, seed=0, max_tokens=16, n_logprobs=-1, eos=(), priority=1, salt=bytes(16)):
    """pictures: [(plan, digest), ...]"""
    out = struct.pack(f"<I{len(tokens)}i", len(tokens), *tokens) + struct.pack("<I", len(pictures))
    for plan, digest in pictures:
        out += plan.raw + digest
    out += struct.pack("<6f2iQ", temperature, 1.0, 0.0, 1.0, 0.0, 0.0, 0, n_logprobs, seed)
    out += struct.pack("<I", 0) + struct.pack(f"<I{len(eos)}i", len(eos), *eos)
    return out + struct.pack("<2i", max_tokens, priority) + salt


def memfd(data, seals=F_SEAL_SHRINK):
    import fcntl
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seals:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


# Puts the descriptors where the command looks for them, then becomes it.
LAUNCH = """import os, sys
fds, args = [int(x) for x in sys.argv[1].split(",")], sys.argv[2:]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.closerange(3 + len(fds), 90)
os.execv(args[0], args)
"""


NOT_JAILED = r"^(image-)?worker: not jailed, since this build has a sanitizer\n"


class Role:
    """A started role; .channel speaks with it. Stderr goes to a file."""

    def __init__(self, *args, board=False, send_bytes=None):
        ours, theirs = socket.socketpair()
        if send_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        fds = [theirs.fileno()]
        self.board = None
        if board:
            self.board = memfd(bytes(BOARD.size))
            fds.append(self.board)
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen([sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), BIN, *map(str, args)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=self.stderr, env=environment(), pass_fds=fds)
        theirs.close()
        self.channel = Channel(ours)

    def figures(self):
        return dict(zip(BOARD_FIELDS, BOARD.unpack(os.pread(self.board, BOARD.size, 0))))

    def said(self):
        """What it wrote to stderr, but for the sentence that a build with a sanitizer begins with."""
        self.stderr.seek(0)
        return re.sub(NOT_JAILED, "", self.stderr.read().decode())

    def is_jailed(self):
        """Once it has answered something. A build with a sanitizer goes without."""
        self.stderr.seek(0)
        return not re.search(NOT_JAILED, self.stderr.read().decode())

    def wait(self, seconds=TIMEOUT_S):
        return self.process.wait(timeout=seconds)

    def end(self):
        """Closes the socket; the role must end by itself with code 0."""
        self.channel.close()
        code = self.wait()
        assert code == 0, (code, self.said())
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.channel.close()
        self.stderr.close()
        if self.board is not None:
            os.close(self.board)
            self.board = None
