"""ocellus serve: pictures. Their order, number and size; hostile files; where they may come from."""
import contextlib
import glob
import http.server
import os
import random
import struct
import threading
import time
import urllib.parse

from harness import ROOT, TMP, Skip, run_json, write
from server_harness import (LONG, SLOW, Server, Shared, case, data_url, heavy, image_part, in_background,
                            in_parallel, main, need_option, picture, png_of_rows, rested, rss_bytes, seconds,
                            user, wait_until)

server = Shared(ctx_tokens=8192)
WHERE = "messages[0].content[0].image_url"


def look(url, s=None, text="What?", max_tokens=4, timeout=60, **fields):
    return (s or server()).chat(user(image_part(url, **fields), text), max_tokens=max_tokens, timeout=timeout)


def tokens(answer):
    return answer.ok().json["usage"]["prompt_tokens_details"]["image_tokens"]


# ---- What is accepted --------------------------------------------------------------------------------------------

@case
def order_and_identity_of_pictures_matter():
    s = server()
    a, b = (image_part(data_url(picture(112, 112, i))) for i in (1, 2))

    def text(*parts):
        return s.chat(user(*parts), max_tokens=16).ok().text
    ab, ba, aa = text(a, b, "Compare."), text(b, a, "Compare."), text(a, a, "Compare.")
    assert ab == text(a, b, "Compare.")
    assert len({ab, ba, aa}) == 3, "other pictures, other answers"
    assert text(a, "Compare.", b) != ab, "text between the pictures counts"


@case
def all_formats_are_read():
    kinds = {"png": "png", "jpeg": "jpeg", "webp": "webp", "gif": "gif", "bmp": "bmp"}
    for folder, kind in kinds.items():
        files = sorted(glob.glob(os.path.join(ROOT, "tests", "fuzz", "corpus", folder, "*")))
        assert files
        read = 0
        for path in files:
            with open(path, "rb") as f:
                a = look(data_url(f.read(), f"image/{kind}"))
            read += a.status == 200
            if a.status != 200:
                a.fails(400, param=WHERE)
        assert read >= len(files) // 2, (folder, read, len(files))


@case
def the_declared_kind_does_not_matter():
    """The bytes say what a picture is."""
    data = picture(56, 56)
    want = look(data_url(data)).ok().text
    for kind in ("image/jpeg", "image/x-anything", "IMAGE/PNG"):
        a = look(data_url(data, kind))
        assert a.status == 400 or a.ok().text == want


@case
def bb_061_pictures_are_those_of_run():
    path = write("same.png", picture(196, 112, 7))
    want = run_json("--ctx", 8192, "--max-tokens", 12, "--ignore-eos", "--temperature", 0, "-i", path, "What?")
    a = look(data_url(picture(196, 112, 7)), max_tokens=12).ok()
    assert a.text == want["choices"][0]["message"]["content"]
    assert tokens(a) == want["usage"]["prompt_tokens_details"]["image_tokens"] == 7 * 4


@case
def bb_070_up_to_five_pictures():
    s = server()
    parts = [image_part(data_url(picture(56, 56, i))) for i in range(6)]
    for n in (3, 5):
        a = s.chat(user(*parts[:n], "Compare.")).ok().json
        assert a["usage"]["prompt_tokens_details"]["image_tokens"] == 4 * n, a["usage"]
        assert len(a["images"]) == n
    a = s.chat(user(*parts, "Compare."))
    a.fails(400, param="messages[0].content[5].image_url", words="5")
    a = s.chat([*user(*parts[:3]), {"role": "assistant", "content": "Yes."}, *user(*parts[3:])])
    a.fails(400, param="messages[2].content[2].image_url")


@case
def the_number_of_pictures_is_an_option():
    with Server(max_images=1) as s:
        part = image_part(data_url(picture(56, 56)))
        s.chat(user(part, "x")).ok()
        s.chat(user(part, part, "x")).fails(400, param="messages[0].content[1].image_url")


@case
def detail_low_caps_the_tokens():
    heavy()
    big = data_url(picture(1400, 1120))
    low, high, auto = (tokens(look(big, detail=d)) for d in ("low", "high", "auto"))
    assert 0 < low <= 256 < high == auto == 50 * 40, (low, high, auto)
    small = data_url(picture(56, 56))
    assert tokens(look(small, detail="low")) == tokens(look(small)) == 4
    look(small, detail=None).ok()
    look(small, detail="medium").fails(400, param="messages[0].content[0].image_url.detail")
    look(small, detail=1).fails(400)


@case
def pixels_can_be_bounded_for_one_picture():
    big = data_url(picture(1400, 1120))
    few = tokens(look(big, max_pixels=200704))
    assert 200 <= few <= 256, few
    small = data_url(picture(56, 56))
    many = tokens(look(small, min_pixels=200704))
    assert 256 <= many <= 330, many
    for bad in ({"min_pixels": -1}, {"max_pixels": "x"}, {"max_pixels": 0}, {"min_pixels": 10**6, "max_pixels": 10**5},
                {"min_pixels": 1.5}):
        look(small, **bad).fails(400)


@case
def the_answer_says_how_pictures_were_resized():
    heavy()
    a = look(data_url(picture(1355, 710))).ok().json
    (image,) = a["images"]
    assert image["original"] == [1355, 710] and image["resized"] == [1344, 700] and image["tokens"] == 1200, image
    assert image["grid"] == [1, 50, 96], image


@case
def bb_072_large_pictures_are_resized_by_the_models_rule():
    """Item 72 resizes to a tier's dimension and refuses over 4096 pixels; here the model's own rule resizes, within the pixel
    caps, and the answer says so."""
    heavy()
    a = look(data_url(picture(5000, 600)), max_tokens=1).ok().json
    (image,) = a["images"]
    assert image["original"] == [5000, 600] and image["tokens"] <= 2048, image
    w, h = image["resized"]
    assert abs(w / h - 5000 / 600) < 0.8, image


@case
def five_pictures_of_ten_megabytes():
    """What the seed could never do (its weakness 30)."""
    rng = random.Random(1)
    rows = [rng.randbytes(3 * 1850) for _ in range(1850)]
    data = png_of_rows(1850, 1850, rows)
    assert 10_000_000 < len(data) < 10 * 1024 * 1024, len(data)
    part = image_part(data_url(data), detail="low")
    a = server().chat(user(*[part] * 5, "Compare."), max_tokens=2, timeout=120).ok().json
    assert a["usage"]["prompt_tokens_details"]["image_tokens"] <= 5 * 256


# ---- What is refused ---------------------------------------------------------------------------------------------

@case
def bb_062_063_broken_data_urls():
    good = data_url(picture(28, 28))
    for url in ("not-a-data-url", "data:text/plain;base64,aGVsbG8=", "data:image/png,notbase64", "data:", "data:,",
                "data:image/png;base64", "data:image/png;base64,", "data:image/png;base64,!!!invalid!!!", good[:-1] + "*",
                good + "=", good + "====", good[:200] + "\n" + good[200:], good[:200] + " " + good[200:],
                "", "://", "data:image/png;base64,\u00e9", "DATA:image/png;base64,aGVsbG8="):
        look(url).fails(400, param=WHERE)
    for bad in (None, 1, [], {}):
        a = server().chat(user({"type": "image_url", "image_url": {"url": bad}}, "x"))
        a.fails(400)
        assert a.error["param"].startswith(WHERE), a
    for bad in ({}, None, 1):
        server().chat(user({"type": "image_url", "image_url": bad}, "x")).fails(400)
    server().chat(user({"type": "image_url"}, "x")).fails(400)


@case
def bb_064_a_picture_over_ten_megabytes():
    data = picture(28, 28)
    for size in (10 * 1024 * 1024 + 1, 15 * 1024 * 1024):
        a = look(data_url(data + b"\0" * (size - len(data))))
        a.fails((400, 413), param=WHERE)
    with Server(max_image_bytes=2000) as s:
        look(data_url(data + b"\0" * (2000 - len(data))), s).ok()
        look(data_url(data + b"\0" * (2001 - len(data))), s).fails((400, 413), param=WHERE, words="2000")


@case
def bb_066_corrupt_files():
    good = picture(64, 64)
    for data in (b"\xff\xd8\xff\xe0" + b"\0" * 500, b"\x89PNG\r\n\x1a\ncorrupted", b"plain text", b"\0", b"GIF89a", b"BM",
                 b"RIFF\xff\xff\xff\xffWEBPVP8 ", good[:60], good[:len(good) // 2], b"\x89PNG\r\n\x1a\n" + good[:50],
                 b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"II*\0" + b"\0" * 100, b"8BPS" + b"\0" * 100):
        a = look(data_url(data))
        a.fails(400, param=WHERE)
        assert a.error["code"] == "invalid_image", a


@case
def bombs_are_refused_by_their_header():
    def header(w, h):
        body = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
        import zlib
        chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
        return b"\x89PNG\r\n\x1a\n" + chunk + picture(28, 28)[33:]
    for w, h in ((60000, 60000), (2**31 - 1, 1), (1, 2**31 - 1), (30000, 30000), (0, 10), (10, 0), (2**32 - 1, 2**32 - 1)):
        began = time.monotonic()
        look(data_url(header(w, h))).fails(400, param=WHERE)
        assert time.monotonic() - began < seconds(5)
    bmp = b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 30000, -30000, 1, 24, 0, 0, 0, 0, 0, 0)
    look(data_url(bmp, "image/bmp")).fails(400, param=WHERE)
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + b"\0" * 6 + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    look(data_url(gif + b"\x02\x02\x44\x01\0;", "image/gif")).fails(400, param=WHERE)


@case
def extreme_shapes():
    for w, h in ((1, 1), (1, 28), (28, 1), (3000, 14), (1, 150), (27, 29)):
        a = look(data_url(picture(w, h)), max_tokens=1)
        assert a.status in (200, 400), a
        if a.status == 400:
            a.fails(400, param=WHERE)
    look(data_url(picture(2010, 10))).fails(400, param=WHERE)  # over 200 to 1: the model's rule has no size for it


@case
def hostile_files_cost_one_request():
    """Mutations of the corpus through the whole server: each is answered with 200 or 400, and the next request works."""
    s = server()
    files = [p for d in ("bmp", "gif", "jpeg", "png", "webp", "exif")
             for p in sorted(glob.glob(os.path.join(ROOT, "tests", "fuzz", "corpus", d, "*")))]
    rng = random.Random(4)

    def mutate(data):
        data = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            kind = rng.randint(0, 3)
            at = rng.randrange(len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:at + rng.randint(1, 64)]
                data = data or bytearray(b"x")
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            else:
                data[at:at + 4] = b"\xff\xff\xff\xff"
        return bytes(data)
    urls = []
    for path in files:
        with open(path, "rb") as f:
            data = f.read()
        urls += [data_url(data)] + [data_url(mutate(data)) for _ in range(20 if LONG else 2)]
    for i in range(0, len(urls), 4):
        answers = in_parallel([lambda u=u: look(u, s, max_tokens=1) for u in urls[i:i + 4]])
        for a in answers:
            assert a.status in (200, 400), a
    look(data_url(picture()), s).ok()
    s.wait_idle()


@case
def pictures_leave_no_memfd_and_no_descriptor_behind():
    s = server()
    for i in range(3):
        look(data_url(picture(280, 280, i)), s).ok()
    s.wait_idle()
    before, before_n = rested(lambda: (s.memfds(), s.n_descriptors()))
    for i in range(20):
        look(data_url(picture(140, 140, 100 + i)), s).ok()
        look(data_url(picture(140, 140, 100 + i)[:300]), s).fails(400)
    s.wait_idle()
    wait_until(lambda: s.memfds() == before and s.n_descriptors() == before_n, 5,
               lambda: f"the descriptors of before: {before} {before_n}, now {s.memfds()} {s.n_descriptors()}")


@case
def image_workers_are_jailed():
    """No network, no files: an image-worker's seccomp filter is on, and it holds no socket but its channel."""
    if SLOW > 1:
        raise Skip("a sanitizer needs what the jail forbids, so there is none in such a build")
    s = server()
    look(data_url(picture()), s).ok()
    pids = wait_until(s.image_workers, 10, "image-workers")
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            status = f.read()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status, status
        targets = os.listdir(f"/proc/{pid}/fd")
        assert len(targets) <= 6, [os.readlink(f"/proc/{pid}/fd/{t}") for t in targets]


@case
def orchestrator_holds_no_pixels():
    """Ten large pictures do not stay in the orchestrator."""
    s = server()
    look(data_url(picture(1400, 1400, 1)), s).ok()
    s.wait_idle()
    before = rss_bytes(s.pid)
    for i in range(10):
        look(data_url(picture(1400, 1400, 200 + i)), s, max_tokens=1, detail="low").ok()
    s.wait_idle()
    assert rss_bytes(s.pid) - before < 64 * 2**20, (before, rss_bytes(s.pid))


# ---- Where pictures may come from --------------------------------------------------------------------------------

class Canary:
    """An HTTP server of this machine that no picture may be fetched from; counts who comes."""

    def __init__(self):
        self.hits = []
        canary = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                canary.hits.append(self.path)
                data = picture(28, 28)
                path, _, rest = self.path[1:].partition("/")
                if path == "slow":
                    time.sleep(seconds(4))
                if path == "to":  # /to/<percent-encoded target>
                    self.send_response(302)
                    self.send_header("Location", urllib.parse.unquote(rest))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if path == "gone":
                    self.send_error(404)
                    return
                if path == "endless":  # no length, no end
                    self.close_connection = True
                    self.send_response(200)
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        for _ in range(400):
                            self.wfile.write(data + b"\0" * 65536)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def forbidden_urls(port):
    """Addresses that are not global, in all the ways they can be written. No host in here is a real one."""
    p = f":{port}/x.png"
    hosts = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f000001", "017700000001",
             "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "127.0.0.1.", "%31%32%37.0.0.1", "localhost", "LOCALHOST", "localhost.",
             "a.localhost", "ip6-localhost", "ip6-loopback", "0.0.0.0", "0", "0.1.2.3", "10.0.0.1", "10.255.255.255",
             "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "169.254.169.254", "169.254.0.1",
             "100.64.0.1", "100.127.255.255", "198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.2.1", "198.51.100.1",
             "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1",
             "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
             "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::127.0.0.1]", "[64:ff9b::10.0.0.1]",
             "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a00:1::]", "[2001::1]", "[2001:db8::1]", "[fc00::1]", "[fd00::1]",
             "[fe80::1]", "[fe80::1%25lo]", "[fec0::1]", "[ff02::1]", "[100::1]", "[::ffff:0:127.0.0.1]",
             "\u0031\u0032\u0037.0.0.1", "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021",
             "user@127.0.0.1", "user:pass@127.0.0.1", "a.invalid@127.0.0.1", "127.0.0.1#@a.invalid",
             "127.0.0.1?@a.invalid", "a.invalid#@127.0.0.1", "127.0.0.1\\@a.invalid", "a.invalid\\@127.0.0.1"]
    urls = [f"http://{h}{p}" for h in hosts]
    urls += [f"{scheme}://127.0.0.1{p}" for scheme in ("https", "HTTP", "ftp", "gopher", "dict", "ldap", "tftp", "smb", "ws",
                                                       "file", "scp", "telnet", "rtsp", "imap", "unix", "jar", "http+unix")]
    urls += [f"http:127.0.0.1{p}", f"http:/127.0.0.1{p}", f"http:///127.0.0.1{p}", f"//127.0.0.1{p}", f" http://127.0.0.1{p}",
             f"http://127.0.0.1{p}\r\nX: y", f"http://127.0.0.1{p} HTTP/1.1", f"http://127.0.0.1:{port}\x00/x.png",
             f"http://\t127.0.0.1{p}", f"url:http://127.0.0.1{p}", f"http://127.0.0.1:0{port}/x.png", f"http://@127.0.0.1{p}",
             "http://", "http://:80/", "http://[::1", "http://[]/", "http://a.invalid:99999/", "http://a.invalid:-1/",
             "http://" + "a" * 5000 + "/", "http://{127.0.0.1,10.0.0.1}/", "http://127.0.0.[1-3]/",
             "file:///etc/passwd", "file://localhost/etc/passwd", "/etc/passwd", "./x.png", "../x.png", "~/x.png",
             f"file://{ROOT}/examples/architecture.png", f"{ROOT}/examples/architecture.png"]
    return urls


@case
def bb_067_073_no_private_address_is_fetched_from():
    s, canary = server(), Canary()
    try:
        urls = forbidden_urls(canary.port)
        assert len(urls) >= 60
        for i in range(0, len(urls), 8):
            answers = in_parallel([lambda u=u: look(u, s, max_tokens=1, timeout=30) for u in urls[i:i + 8]])
            for u, a in zip(urls[i:i + 8], answers):
                assert a.status == 400, (u, a)
                a.fails(400, param=WHERE)
        assert canary.hits == [], f"{len(canary.hits)} came through: {canary.hits}"
    finally:
        canary.close()


@case
def remote_pictures_can_be_switched_off():
    with Server(remote_images=False) as s:
        for url in ("http://a.invalid/x.png", "https://a.invalid/x.png"):
            look(url, s).fails(400, param=WHERE)
        look(data_url(picture()), s).ok()


@case
def an_unknown_host_is_400():
    look("http://no-such-host.invalid/x.png").fails(400, param=WHERE)


@case
def proxies_of_the_environment_are_not_used():
    canary = Canary()
    try:
        proxy = f"http://127.0.0.1:{canary.port}"
        with Server(env={k: proxy for k in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy")}) as s:
            look("http://no-such-host.invalid/x.png", s).fails(400)
            look("https://no-such-host.invalid/x.png", s).fails(400)
        assert canary.hits == []
    finally:
        canary.close()


@case
def bb_069_files_only_below_the_media_directory():
    """Item 69 reads any path; here only what lies below --media-dir, and nothing without it."""
    media = os.path.join(TMP, "media")
    inside = write("media/in/a b.png", picture(28, 28))
    write("outside.png", picture(28, 28))
    write("media-evil/x.png", picture(28, 28))
    write("media/big.png", picture(28, 28) + b"\0" * (10 * 1024 * 1024))
    for name, target in (("out", "../outside.png"), ("up", ".."), ("abs", "/etc/passwd"), ("in/loop", "loop")):
        os.symlink(target, os.path.join(media, name))
    os.mkfifo(os.path.join(media, "pipe"))
    with Server(media_dir=media) as s:
        url = "file://" + inside.replace(" ", "%20")
        want = look(data_url(picture(28, 28)), s).ok().text
        assert look(url, s).ok().text == want
        for bad in (f"file://{TMP}/outside.png", f"file://{media}/../outside.png", f"file://{media}/%2e%2e/outside.png",
                    f"file://{media}/out", f"file://{media}/up/outside.png", f"file://{media}/abs", f"file://{media}/in/loop",
                    f"file://{TMP}/media-evil/x.png", f"file://{media}/none.png", f"file://{media}/in", f"file://{media}",
                    f"file://{media}/big.png", f"file://{media}/pipe", "file:///dev/zero", "file:///proc/self/environ",
                    f"file://evil.invalid{inside}", f"file://{media}/in/a%00b.png", f"file://{media}/in/a b.png%00"):
            began = time.monotonic()
            look(bad, s, timeout=20).fails((400, 413), param=WHERE)
            assert time.monotonic() - began < seconds(5), bad
    look("file://" + inside).fails(400, param=WHERE)


@case
def bb_068_remote_pictures_are_fetched():
    """From this machine, with the option that allows it: good ones, late ones, missing ones, endless ones, redirects."""
    need_option("--allow-private-images")
    canary = Canary()

    def quoted(target):
        return urllib.parse.quote(target, safe="")
    try:
        with Server(allow_private_images=True, args=["--fetch-timeout", "2"]) as s:
            base = f"http://127.0.0.1:{canary.port}"
            want = look(data_url(picture(28, 28)), s).ok().text
            assert look(f"{base}/x.png", s).ok().text == want
            assert canary.hits == ["/x.png"]
            assert look(f"{base}/to/{quoted(base + '/x.png')}", s).ok().text == want
            assert look(f"{base}/to/{quoted('/x.png')}", s).ok().text == want, "a relative redirect"
            for bad in ("/gone", "/slow", "/endless", "/to/" + quoted("file:///etc/passwd"), "/to/" + quoted("ftp://127.0.0.1/x"),
                        "/to/" + quoted("gopher://127.0.0.1:1/x"), "/to/" + quoted("data:image/png;base64,AAAA"),
                        "/to/" + quoted("http://no-such-host.invalid/"), "/to/"):
                began = time.monotonic()
                look(base + bad, s, timeout=30).fails((400, 413), param=WHERE)
                assert time.monotonic() - began < seconds(3.5), bad
            loop = base + "/to/" + quoted("/to/" + quoted("/to/x"))
            look(loop, s).fails(400, param=WHERE)
            before = len(canary.hits)
            look(base + "/to/" + quoted(base + "/to/" + quoted("http://127.0.0.1:1/")), s).fails(400, param=WHERE)
            assert len(canary.hits) <= before + 2
            # five at once, and the server answers meanwhile
            slow = [in_background(lambda: look(f"{base}/slow", s)) for _ in range(5)]
            assert s.get("/health", timeout=2).ok()
            for a in slow:
                a().fails(400, param=WHERE)
    finally:
        canary.close()


@case
def text_models_refuse_pictures():
    from server_harness import cache_model
    cache_model("test/plain", 3, text_only=True)
    with Server(models=["test/plain"]) as s:
        s.chat(max_tokens=2).ok()
        a = look(data_url(picture()), s)
        a.fails(400, param=WHERE)


if __name__ == "__main__":
    main()
