"""ocellus serve under load: 64 streams at once, the same text alone and among others, idle connections.

OCELLUS_LOAD_S says for how long (20 s; 300 s in make test-all).
"""
import threading
import time

from server_harness import (LOAD_S, LONG, SLOW, Server, Shared, case, data_url, heavy, image_part, in_parallel, joined, main, picture,
                            private_bytes, rss_bytes, seconds, user, wait_until)

# All 64 run at once: each has its pages.
server = Shared(parallel=64, ctx_tokens=512, queue_depth=200, speculate="auto")


def tasks():
    """Eight kinds of request, with and without pictures, greedy and sampled; each (messages, fields)."""
    out = []
    for i in range(8):
        parts = [f"Question {i}: what do you see? " + "word " * (7 * i)]
        if i % 4 == 1:
            parts.insert(0, image_part(data_url(picture(84 + 28 * (i % 3), 84, i))))
        out.append((user(*parts), dict(max_tokens=12 + 3 * i, temperature=0 if i % 2 else 1.2, seed=i)))
    return out


def answer(s, task):
    st = s.stream(task[0], timeout=300, **task[1])
    chunks = st.chunks()
    assert st.finished and not any("error" in c for c in chunks), chunks[-1:]
    return joined(chunks)


@case
def outputs_at_1_8_and_64_are_identical():
    s = server()
    all_tasks = tasks()
    alone = [answer(s, t) for t in all_tasks]
    again = [answer(s, t) for t in all_tasks]
    assert alone == again
    eight = in_parallel([lambda t=t: answer(s, t) for t in all_tasks], 300)
    assert eight == alone, "8 at once"
    many = in_parallel([lambda t=t: answer(s, t) for t in all_tasks * 8], 600)
    assert many == alone * 8, "64 at once"


@case
def sixty_four_streams_for_a_while():
    """Every answer is whole and the one that its question has alone; after a warm-up memory is flat."""
    heavy()
    s = server()
    all_tasks = tasks()
    want = [answer(s, t) for t in all_tasks]
    stop = threading.Event()
    counts, wrong, figures = [0] * 64, [], []

    def client(i):
        k = i
        while not stop.is_set():
            try:
                if answer(s, all_tasks[k % 8]) != want[k % 8]:
                    wrong.append(f"client {i}: another text for task {k % 8}")
            except Exception as e:  # told below
                wrong.append(f"client {i}: {type(e).__name__} {e}")
                return
            counts[i] += 1
            k += 1
    threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(64)]
    for t in threads:
        t.start()
    began = time.monotonic()
    while time.monotonic() - began < LOAD_S and not wrong:
        time.sleep(LOAD_S / 40)
        h = time.monotonic()
        s.get("/health").ok()
        figures.append((time.monotonic() - began, private_bytes(s.pid), sum(rss_bytes(p) for p in s.workers()),
                        time.monotonic() - h))
    stop.set()
    for t in threads:
        t.join(seconds(120))
    assert not any(t.is_alive() for t in threads), "streams that do not end"
    assert not wrong, wrong[:5]
    n = sum(counts)
    print(f"{n} answers in {LOAD_S:.0f} s, none failed; orchestrator {figures[0][1] >> 20} -> {figures[-1][1] >> 20} MiB, "
          f"worker {figures[0][2] >> 20} -> {figures[-1][2] >> 20} MiB")
    assert n >= 64 or SLOW > 1, f"only {n} answers"
    warm = [f for f in figures if f[0] > LOAD_S / 3]
    half = len(warm) // 2
    for column, what, least in ((1, "orchestrator", 8 * 2**20), (2, "worker", 16 * 2**20)):
        first, last = (max(f[column] for f in part) for part in (warm[:half], warm[half:]))
        assert last - first < max(least, first * 0.05), f"RSS of the {what} grows: {first} -> {last}"
    s.wait_idle()
    m = s.admin("/admin/queue").json
    assert m["active_slots"] == 0 and m["queue_depth"] == 0, m


@case
def a_thousand_idle_connections():
    """They cost less than 50 MB, and others are served beside them."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with Server() as s:
        s.chat(max_tokens=1).ok()
        before = rss_bytes(s.pid)
        socks = []
        try:
            for _ in range(1000):
                c = s.connect()
                c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                socks.append(c)
            for c in socks:
                assert c.recv(65536).startswith(b"HTTP/1.1 200 ")
            cost = rss_bytes(s.pid) - before
            print(f"1000 idle connections: {cost / 2**20:.1f} MiB")
            assert cost < 50 * 10**6 or SLOW > 1, cost
            s.chat(max_tokens=1).ok()
            for c in socks[::100]:
                c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert c.recv(65536).startswith(b"HTTP/1.1 200 ")
        finally:
            for c in socks:
                c.close()
        wait_until(lambda: s.n_descriptors()[s.pid] < 200, 5, "the connections to be gone")


@case
def clients_that_come_and_go_leave_memory_flat():
    s = server()

    def some(n):
        for i in range(n):
            st = s.stream(f"Come {i}", max_tokens=50)
            st.next_text()
            st.close()
    some(30)
    s.wait_idle()
    before = private_bytes(s.pid)
    some(300 if LONG else 60)
    s.wait_idle()
    assert private_bytes(s.pid) - before < 8 * 2**20 * (1 if SLOW == 1 else 8), (before, private_bytes(s.pid))


@case
def overhead_of_the_server_is_small():
    """TTFT through the server against the worker's own figures: at most 2 ms at the median, asked for in the long version."""
    s = server()
    over = []
    for i in range(30):
        t = s.chat(f"Overhead {i}", max_tokens=2).ok().json["timings"]
        over.append(t["ttft_ms"] - t["prefill_ms"] - t["queue_ms"])
    over.sort()
    print(f"TTFT less prefill and queue, median: {over[15]:.2f} ms")
    assert over[15] < seconds(2 if LONG else 10), over


if __name__ == "__main__":
    main()
