"""ocellus serve: who waits, who goes first, who is turned away."""
import threading
import time

from server_harness import (Server, Shared, case, data_url, image_part, in_background, main, picture, seconds, stopped, user,
                            wait_until)

LONG_ANSWER = 3500
server = Shared(parallel=1, queue_depth=6)


def occupy(s, max_tokens=LONG_ANSWER):
    """A stream that holds the only slot."""
    st = s.stream("Tell me a long story.", max_tokens=max_tokens, timeout=60)
    assert st.next_text()
    return st


def queue(s):
    return s.admin("/admin/queue").ok().json


def wait_waiting(s, n):
    wait_until(lambda: queue(s)["queue_depth"] == n, 10, lambda: f"{n} waiting requests: {queue(s)}")


class Order:
    """Requests in the background that tell in which order they got their answers."""

    def __init__(self, s):
        self.s, self.order, self.lock, self.joins = s, [], threading.Lock(), []

    def add(self, name, priority):
        def one():
            a = self.s.chat(name, max_tokens=4, headers={"X-Priority": priority} if priority else {}, timeout=120)
            with self.lock:
                self.order.append(name)
            return a
        before = queue(self.s)["queue_depth"]
        self.joins.append(in_background(one))
        wait_waiting(self.s, before + 1)

    def done(self):
        answers = [j(120) for j in self.joins]
        for a in answers:
            a.ok()
        return self.order, answers


@case
def bb_089_high_before_normal_before_low():
    s = server()
    st = occupy(s)
    o = Order(s)
    for name, priority in (("l1", "low"), ("n1", None), ("h1", "high"), ("l2", "LOW"), ("n2", "urgent"), ("h2", "High")):
        o.add(name, priority)
    waiting = queue(s)["waiting_by_priority"]
    assert waiting == {"high": 2, "normal": 2, "low": 2}, waiting
    assert queue(s)["active_slots"] == 1
    st.close()
    order, answers = o.done()
    assert order == ["h1", "h2", "n1", "n2", "l1", "l2"], order
    assert all(int(a.headers["x-queue-wait-ms"]) > 0 for a in answers)
    assert all(int(a.headers["x-queue-position"]) >= 1 for a in answers)


@case
def bb_091_a_full_queue_turns_away():
    s = server()
    before = s.admin("/admin/metrics").json["queue_full_rejects"]
    st = occupy(s)
    o = Order(s)
    for i in range(6):
        o.add(f"w{i}", "normal")
    for stream in (False, True):
        a = s.chat(max_tokens=1, stream=stream)
        a.fails(503, code="queue_full")
        assert int(a.headers["retry-after"]) >= 1 and a.error["type"] == "unavailable_error", a
    s.get("/health").ok()
    st.close()
    o.done()
    assert s.admin("/admin/metrics").json["queue_full_rejects"] == before + 2
    assert s.chat(max_tokens=1).ok()


@case
def bb_094_figures_of_the_queue():
    with Server(parallel=1, queue_depth=10) as s:
        q = queue(s)
        assert q["enabled"] is True and q["queue_depth"] == 0 and q["totals"] == {"enqueued": 0, "completed": 0, "timeouts": 0}, q
        s.chat(max_tokens=1).ok()
        st = occupy(s)
        o = Order(s)
        for name, p in (("a", "high"), ("b", "high"), ("c", "normal"), ("d", "low"), ("e", "low"), ("f", "low")):
            o.add(name, p)
        q = queue(s)
        assert q["waiting_by_priority"] == {"high": 2, "normal": 1, "low": 3}, q
        assert q["active_slots"] == 1 and q["max_slots"] == 1 and q["max_queue_depth"] == 10 and q["queue_depth"] == 6, q
        assert s.metric("vllm:num_requests_waiting") == 6 and s.metric("vllm:num_requests_running") == 1
        st.close()
        o.done()
        s.wait_idle()
        q = queue(s)
        assert q["queue_depth"] == 0 and q["active_slots"] == 0 and q["totals"]["enqueued"] == 8, q
        assert q["avg_wait_time_ms"] > 0, q


def look_at(n):
    return user(f"What is in picture {n}?", image_part(data_url(picture(280, 196, n))))


def memory(s):
    return s.admin("/admin/status").ok().json["memory"]


@case
def pictures_wait_for_memory_for_their_pixels():
    pixels = 14 * 20 * 14 * 14 * 3
    with Server(picture_memory="1", parallel=4) as s:  # one request's pictures at a time
        s.chat(look_at(1), max_tokens=1).ok()
        assert memory(s)["pictures_gb"] == 0 and memory(s)["waiting_for_pictures"] == 0, memory(s)
        with stopped(s.workers()):
            first = in_background(lambda: s.chat(look_at(2), max_tokens=4, timeout=120))
            wait_until(lambda: s.metric("ocellus_picture_memory_bytes") == pixels, 30, lambda: f"the first to be decoded: {memory(s)}")
            second = in_background(lambda: s.chat(look_at(3), max_tokens=4, timeout=120))
            wait_until(lambda: memory(s)["waiting_for_pictures"] == 1, 30, lambda: f"the second to wait: {memory(s)}")
            gone = in_background(lambda: s.chat(look_at(4), max_tokens=4, timeout=2))
            wait_until(lambda: memory(s)["waiting_for_pictures"] == 2, 30, lambda: f"the third to wait: {memory(s)}")
            assert s.metric("ocellus_picture_memory_waiting") == 2
            wait_until(lambda: memory(s)["waiting_for_pictures"] == 1, 30, lambda: f"the third to leave: {memory(s)}")
            try:
                raise AssertionError(f"the client that left got an answer: {gone(60)}")
            except OSError:  # its time-out
                pass
        for answer in (first(120), second(120)):
            assert answer.ok().json["images"][0]["grid"] == [1, 14, 20], answer
        s.wait_idle()
        assert memory(s)["pictures_gb"] == 0 and memory(s)["waiting_for_pictures"] == 0, memory(s)


@case
def a_wait_for_memory_has_its_limit():
    with Server(picture_memory="1", parallel=4, queue_timeout_normal="1s", queue_timeout_low="1s") as s:
        s.chat(look_at(1), max_tokens=1).ok()
        with stopped(s.workers()):
            first = in_background(lambda: s.chat(look_at(2), max_tokens=4, timeout=120))
            wait_until(lambda: memory(s)["pictures_gb"] > 0, 30, lambda: f"the first to be decoded: {memory(s)}")
            a = s.chat(look_at(3), max_tokens=1, timeout=120)
            a.fails(503, code="queue_timeout", words="memory for its pictures")
            assert int(a.headers["retry-after"]) >= 1, a
            assert memory(s)["waiting_for_pictures"] == 0, memory(s)
        first(120).ok()
        s.chat(look_at(3), max_tokens=1).ok()


@case
def bb_097_a_wait_has_its_limit():
    with Server(parallel=1, args=["--queue-timeout-high", "3", "--queue-timeout-normal", "2", "--queue-timeout-low", "1"]) as s:
        st = occupy(s)
        with stopped(s.workers()):  # so that the answer is not over before the waits are
            for priority, limit in (("low", 1), ("normal", 2), ("high", 3)):
                began = time.monotonic()
                a = s.chat(max_tokens=1, headers={"X-Priority": priority})
                took = time.monotonic() - began
                a.fails(503, code="queue_timeout")
                assert limit - 0.05 <= took < limit + seconds(1), (priority, took)
                assert int(a.headers["x-queue-wait-ms"]) >= 1000 * limit - 50 and int(a.headers["retry-after"]) >= 1, a
            assert queue(s)["totals"]["timeouts"] == 3, queue(s)
            assert queue(s)["active_slots"] == 1 and queue(s)["queue_depth"] == 0, "no slot may be lost or gained"
        st.close()
        s.chat(max_tokens=1).ok()


@case
def waiting_clients_that_leave_make_room():
    s = server()
    st = occupy(s)
    leaving = []
    for _ in range(6):
        c = s.connect()
        body = b'{"messages":[{"role":"user","content":"x"}],"max_tokens":2}'
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        leaving.append(c)
    wait_waiting(s, 6)
    for c in leaving:
        c.close()
    wait_waiting(s, 0)
    o = Order(s)
    o.add("one", "normal")
    st.close()
    o.done()
    s.wait_idle()


@case
def a_stream_holds_its_slot_to_the_last_byte():
    s = server()
    st = occupy(s)
    for _ in range(3):
        assert queue(s)["active_slots"] == 1
        st.next_text()
    st.close()
    wait_until(lambda: queue(s)["active_slots"] == 0, 5, "the slot to be free")


@case
def slots_run_side_by_side():
    """--parallel 4: four streams at once, the fifth waits."""
    with Server(parallel=4) as s:
        streams = [occupy(s, 900) for _ in range(4)]
        assert queue(s)["active_slots"] == 4 and queue(s)["max_slots"] == 4
        fifth = in_background(lambda: s.chat(max_tokens=1, timeout=120))
        wait_waiting(s, 1)
        for st in streams:
            assert st.next_text(), "all of them flow"
        streams[0].close()
        fifth().ok()
        for st in streams[1:]:
            assert st.next_text()
            st.close()


@case
def pages_of_the_cache_are_reserved():
    """A request that the KV pages have no room for now waits; it does not fail in the middle."""
    with Server(parallel=8, ctx_tokens=256, kv_tokens=512) as s:
        answers = [in_background(lambda i=i: s.chat(f"Question {i}", max_tokens=180, timeout=300)) for i in range(5)]
        for a in answers:
            u = a(300).ok().json["usage"]
            assert u["completion_tokens"] == 180 and 2 * u["total_tokens"] <= 512 < 3 * u["total_tokens"], u  # two fit


@case
def bb_112_a_request_has_its_limit():
    with Server(request_timeout=3) as s:
        s.chat(max_tokens=1).ok()
        began = time.monotonic()
        a = s.chat(max_tokens=LONG_ANSWER, timeout=60)
        assert time.monotonic() - began < seconds(8)
        if a.status != 200:  # a machine that makes 3500 tokens in three seconds has no timeout
            a.fails((408, 503, 504))
        s.wait_idle(5)


if __name__ == "__main__":
    main()
