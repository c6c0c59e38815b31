"""`ocellus worker` as the server starts it: answers like `ocellus run`, several jobs at once, errors, ends."""
import json
import os
import signal
import socket
import subprocess
import sys
import time

from harness import BIN, MODEL, TIMEOUT_S, Skip, case, environment, main, ocellus, png, run_json
from roles import (CANCEL, CANCELLED, DECODE, DONE, ENCODE, ERROR, JOB, LAUNCH, LENGTH, LOOK, PREFILL, READY, REFUSED, SEEN, SHUTDOWN, STAGE,
                   STOP, TOKENS, BOARD, Channel, Ended, Role, memfd, put_job, put_look, read_done, read_error, read_ready, read_seen,
                   read_tokens, Reader)

CTX = 2048
FLAGS = ("--model", MODEL, "--ctx", CTX, "--kv-tokens", 4 * CTX, "--parallel", 4, "--threads", 1, "--image-max-tokens", 64)
FORMAT, UNSUPPORTED, LIMIT, NOT_FOUND = 4, 5, 6, 3


def start(*more, **how):
    role = Role("worker", *FLAGS, *more, board=True, **how)
    kind, ident, payload, fds = role.channel.receive()
    assert (kind, ident, fds) == (READY, 0, []), (kind, read_error(payload) if kind == REFUSED else "", role.said())
    role.ready = read_ready(payload)
    figures = role.figures()
    assert figures["kv_pages"] * 16 >= role.ready["kv_tokens"] and figures["rss_bytes"] > 1 << 20, figures
    return role


class Answer:
    def __init__(self):
        self.stages, self.picks, self.done, self.stage_figures = [], [], None, {}

    @property
    def tokens(self):
        return [p[0] for p in self.picks]


def collect(role, n, until=None):
    """Reads until n jobs are done, or until `until` says so; {id: Answer} and the ids in the order of their messages."""
    answers, order = {}, []
    while sum(a.done is not None for a in answers.values()) < n:
        kind, ident, payload, fds = role.channel.receive()
        assert not fds
        a = answers.setdefault(ident, Answer())
        assert a.done is None, "a message after DONE"
        if kind == STAGE:
            stage, n_prompt, n_cached = Reader(payload).take("3i")
            a.stages.append(stage)
            a.stage_figures[stage] = (n_prompt, n_cached)
        elif kind == TOKENS:
            a.picks += read_tokens(payload)
            order.append(ident)
        else:
            assert kind == DONE, kind
            a.done = read_done(payload)
        if until and until(answers):
            break
    return answers, order


def idle_figures(role):
    """The board once no job is left: it is written after the step whose messages are out already."""
    for _ in range(500):
        figures = role.figures()
        if figures["n_running"] + figures["n_waiting"] == 0:
            return figures
        time.sleep(0.01)
    raise AssertionError(figures)


def submit(role, ident, tokens, fds=(), **options):
    role.channel.send(JOB, ident, put_job(tokens, **options), fds)


def token_table():
    """(text of an added token -> id, bytes of a token -> id) of the test's model."""
    with open(os.path.join(MODEL, "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = {chr(b): b for b in printable}
    for i, b in enumerate(b for b in range(256) if b not in printable):
        chars[chr(256 + i)] = b
    added = {a["content"]: a["id"] for a in t["added_tokens"]}
    names = {bytes(chars[c] for c in text): i for text, i in t["model"]["vocab"].items() if text not in added}
    names.update({text.encode(): i for text, i in added.items()})
    return added, names


ADDED, NAMES = token_table()
SAMPLING = ("--top-p", 1, "--top-k", 0, "--min-p", 0, "--repetition-penalty", 1, "--ignore-eos")
PROMPTS = ["<|im_start|><|im_end|>", "<|im_end|><|im_start|><|vision_start|><|im_start|>", "<|endoftext|>" * 40]


def ids_of(prompt):
    return [ADDED["<|" + p] for p in prompt.split("<|")[1:]]


def reference(prompt, *args, temperature=0.0, seed=0, max_tokens=16):
    """What `ocellus run` answers: [(token, logprob), ...]"""
    r = run_json("--raw", "--temperature", temperature, "--seed", seed, "--max-tokens", max_tokens, "--logprobs", 0, "--ctx", CTX, "--threads", 1,
                 "--image-max-tokens", 64, *SAMPLING, *args, prompt)
    return [(NAMES[bytes(c["bytes"])], c["logprob"]) for c in r["choices"][0]["logprobs"]["content"]]


def same(answer, expected):
    assert answer.tokens == [t for t, _ in expected], (answer.tokens, expected)
    for (_, got, _), (_, wanted) in zip(answer.picks, expected):
        assert abs(got - wanted) <= 1e-5 * max(1, abs(wanted)), (got, wanted)


@case
def ready_says_what_measure_says():
    role = start()
    r = ocellus("worker", "--measure", *FLAGS)
    assert r.code == 0 and r.err == "" and r.out.count("\n") == 1, r
    measured = json.loads(r.out)
    for key in "architecture family isa device device_name device_why device_bytes n_params n_vocab weight_bytes kv_bytes workspace_bytes ctx_tokens kv_tokens n_sessions image_max_tokens".split():
        assert role.ready[key] == measured[key], (key, role.ready[key], measured[key])
    assert measured["has_vision"] and measured["embed_cache_bytes"] == 256 << 20, measured
    assert role.ready["version"] == 4 and role.ready["throughput"] == 0 and role.ready["ctx_tokens"] == CTX and role.ready["kv_tokens"] >= 4 * CTX, role.ready
    assert role.ready["image_token"] == ADDED["<|image_pad|>"] and role.ready["rules"]["max_tokens"] == 64, role.ready
    role.end()
    r = ocellus("worker", "--measure", "--model", "/nonexistent")
    assert r.code == 1 and r.out == "" and "/nonexistent" in r.err, r
    r = ocellus("worker")
    assert r.code == 2 and "--model" in r.err, r


def status_bytes(role, name):
    with open(f"/proc/{role.process.pid}/status") as f:
        return int(next(line for line in f if line.startswith(name + ":")).split()[1]) * 1024


def fill(role, parallel, ctx):
    """A job for each sequence, each with pictures of its own to fill a context; until all of them have been done."""
    rules, files = role.ready["rules"], []
    for i in range(parallel):
        paths = [png(f"m{i}-{k}.png", 224, 224, lambda x, y, s=i * 4 + k: (x * (s + 1) % 256, y, s)) for k in range(ctx // 80)]
        seen = [look(path, rules) for path in paths]
        prompt = ids_of("<|im_start|>" + "<|vision_start|><|image_pad|><|vision_end|>" * len(seen))
        n_prompt = len(prompt) + sum(s["plan"].n_tokens - 1 for s, _ in seen)
        submit(role, i + 1, prompt, [fd for _, fd in seen], pictures=[(s["plan"], s["digest"]) for s, _ in seen],
               max_tokens=ctx - n_prompt, temperature=1.0, seed=i, n_logprobs=20)
        files += [fd for _, fd in seen]
    answers, _ = collect(role, parallel)
    assert all(a.done["finish"] == LENGTH for a in answers.values()), [a.done for a in answers.values()]
    for fd in files:
        os.close(fd)


@case
def measure_tells_no_less_than_a_worker_takes():
    for parallel, ctx, cache in ((1, 256, 0), (4, 512, 0), (16, 256, 1 << 20)):
        flags = ("--model", MODEL, "--ctx", ctx, "--kv-tokens", parallel * ctx, "--parallel", parallel, "--threads", 2, "--image-max-tokens", 64,
                 "--embed-cache-bytes", cache)
        told = json.loads(ocellus("worker", "--measure", *flags).out)
        role = Role("worker", *flags, board=True)
        kind, _, payload, _ = role.channel.receive()
        assert kind == READY
        role.ready = read_ready(payload)
        fill(role, parallel, ctx)
        if not role.is_jailed():
            role.end()
            raise Skip("this build has a sanitizer, which takes memory of its own")
        taken = status_bytes(role, "VmHWM") - told["weight_bytes"]  # the file of the weights is mapped whole
        most = told["kv_bytes"] + told["workspace_bytes"] + told["embed_cache_bytes"] + told["jobs_bytes"]
        print(f"  {parallel} sequences of {ctx}: {taken >> 10} KiB taken, {most >> 10} told, {told['jobs_bytes'] >> 10} of them for jobs")
        assert taken <= most, (parallel, ctx, taken, told)
        role.end()


@case
def a_model_that_cannot_be_loaded_is_refused():
    role = Role("worker", "--model", "/nonexistent", board=True)
    kind, _, payload, _ = role.channel.receive()
    err, message = read_error(payload)
    assert kind == REFUSED and err == NOT_FOUND and "/nonexistent" in message, (kind, err, message)
    try:
        role.channel.receive()
        raise AssertionError("more after REFUSED")
    except Ended:
        pass
    assert role.wait() == 1 and "/nonexistent" in role.said()
    role.close()


@case
def answers_are_those_of_run():
    role = start()
    wanted, ident = {}, 0
    for prompt in PROMPTS:
        for temperature, seed in ((0.0, 0), (1.3, 7)):
            ident += 1
            wanted[ident] = reference(prompt, temperature=temperature, seed=seed)
            submit(role, ident, ids_of(prompt), temperature=temperature, seed=seed, n_logprobs=0)
    answers, _ = collect(role, ident)
    for i, expected in wanted.items():
        same(answers[i], expected)
        done = answers[i].done
        assert done["finish"] == LENGTH and done["n_output"] == 16 and done["err"] == 0 and done["message"] == "", done
        assert answers[i].stages == [PREFILL, DECODE] and done["n_prompt"] == len(ids_of(PROMPTS[(i - 1) // 2])), (answers[i].stages, done)
        assert done["prefill_ms"] > 0 and done["decode_ms"] > 0, done
    role.end()


@case
def two_jobs_at_once():
    role = start()
    wanted = [reference(PROMPTS[i], temperature=1.0, seed=i, max_tokens=40) for i in range(2)]
    for i in range(2):
        submit(role, i + 1, ids_of(PROMPTS[i]), temperature=1.0, seed=i, max_tokens=40, n_logprobs=0)
    answers, order = collect(role, 2)
    for i in range(2):
        same(answers[i + 1], wanted[i])
    first_end = max(k for k, i in enumerate(order) if i == 1)
    assert 2 in order[:first_end], "the second waited for the first"
    switches = sum(a != b for a, b in zip(order, order[1:]))
    assert switches > 20, (switches, order)
    figures = idle_figures(role)
    assert figures["n_output_tokens"] == 80 and figures["n_steps"] >= 40, figures
    assert figures["rss_bytes"] > 1 << 20 and figures["kv_pages"] * 16 >= 4 * CTX, figures
    role.end()


def look(path, rules):
    eye = Role("image-worker")
    with open(path, "rb") as f:
        fd = memfd(f.read(), seals=0)
    eye.channel.send(LOOK, 1, put_look(rules), [fd])
    os.close(fd)
    kind, _, payload, fds = eye.channel.receive()
    assert kind == SEEN, read_error(payload)
    eye.end()
    return read_seen(payload), fds[0]


@case
def pictures():
    role = start()
    path = png("p.png", 160, 90, lambda x, y: (x, 2 * y, (x * y) % 256))
    prompt = "<|im_start|><|vision_start|><|image_pad|><|vision_end|><|im_end|>"
    expected = reference(prompt, "--image", path)
    seen, fd = look(path, role.ready["rules"])
    plan = seen["plan"]
    submit(role, 1, ids_of(prompt), [fd], pictures=[(plan, seen["digest"])], n_logprobs=0)
    answer = collect(role, 1)[0][1]
    same(answer, expected)
    done = answer.done
    assert answer.stages == [ENCODE, PREFILL, DECODE], answer.stages
    assert done["n_image"] == plan.n_tokens and done["n_prompt"] == 4 + plan.n_tokens and done["n_image_cached"] == 0 and done["encode_ms"] > 0, done
    # Another question about the same picture finds its embedding.
    other = "<|endoftext|>" + prompt
    submit(role, 2, ids_of(other), [fd], pictures=[(plan, seen["digest"])], n_logprobs=0)
    answer = collect(role, 1)[0][2]
    same(answer, reference(other, "--image", path))
    assert answer.done["n_image_cached"] == plan.n_tokens, answer.done
    figures = idle_figures(role)
    assert figures["n_embed_queries"] == 2 and figures["n_embed_hits"] == 1 and figures["embed_bytes"] > 0, figures
    os.close(fd)
    role.end()


@case
def all_its_threads_are_jailed_once_it_is_ready():
    """Starts race with the threads that they start: often, with more threads than processors."""
    role = start()
    role.stderr.seek(0)
    if b"sanitizer" in role.stderr.read():
        raise Skip("a build with a sanitizer has no jail")
    role.end()
    for _ in range(12):
        role = start("--threads", 8)
        tasks = os.listdir(f"/proc/{role.process.pid}/task")
        assert len(tasks) == 8, tasks
        for task in tasks:
            with open(f"/proc/{role.process.pid}/task/{task}/status") as f:
                status = dict(line.split(":", 1) for line in f)
            assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1", (task, status)
        submit(role, 1, ids_of(PROMPTS[0]), max_tokens=4)
        assert collect(role, 1)[0][1].done["finish"] == LENGTH
        role.end()


@case
def a_prompt_that_was_there_is_reused():
    role = start()
    tokens = ids_of(PROMPTS[2]) * 3
    submit(role, 1, tokens)
    submit(role, 2, tokens, salt=b"another tenant!!")
    first = collect(role, 2)[0]
    submit(role, 3, tokens)
    again = collect(role, 1)[0][3]
    assert first[1].done["n_cached"] == first[2].done["n_cached"] == 0 and again.done["n_cached"] >= 64, again.done
    assert first[1].tokens == first[2].tokens == again.tokens
    assert again.stage_figures[PREFILL][0] == len(tokens), again.stage_figures
    role.end()
    role = start("--no-prefix-cache", "--no-speculation")
    for i in (1, 2):
        submit(role, i, tokens)
        answer = collect(role, 1)[0][i]
        assert answer.done["n_cached"] == 0 and answer.tokens == again.tokens, answer.done
    assert idle_figures(role)["n_drafted"] == 0
    role.end()


@case
def an_end_token_ends_the_answer():
    role = start()
    submit(role, 1, ids_of(PROMPTS[0]), max_tokens=8)
    tokens = collect(role, 1)[0][1].tokens
    n = next(i for i in range(8) if tokens[i] not in tokens[:i] and i >= 2) if len(set(tokens)) > 2 else 0
    submit(role, 2, ids_of(PROMPTS[0]), max_tokens=8, eos=[tokens[n]])
    answer = collect(role, 1)[0][2]
    assert answer.tokens == tokens[:n] and answer.done["finish"] == STOP and answer.done["n_output"] == n + 1, (tokens, answer.tokens, answer.done)
    role.end()


@case
def cancelled_wherever_it_is():
    role = start()
    role.channel.send(CANCEL, 99)  # nobody's
    for ident in range(1, 6):  # one more than run at once
        submit(role, ident, ids_of(PROMPTS[1]), max_tokens=1500)
    role.channel.send(CANCEL, 5)
    answers, _ = collect(role, 1)
    assert answers[5].done["finish"] == CANCELLED and answers[5].tokens == [], vars(answers[5])
    role.channel.send(CANCEL, 1)
    later, _ = collect(role, 1)
    assert later[1].done["finish"] == CANCELLED and later[1].done["n_output"] < 1500, later[1].done
    for ident in (2, 3, 4):
        role.channel.send(CANCEL, ident)
    rest, _ = collect(role, 3)
    assert all(rest[i].done["finish"] == CANCELLED for i in (2, 3, 4))
    idle_figures(role)
    submit(role, 6, ids_of(PROMPTS[1]), max_tokens=4)
    assert collect(role, 1)[0][6].done["finish"] == LENGTH
    role.end()


def fails(role, ident, err, words, payload, fds=()):
    role.channel.send(JOB, ident, payload, fds)
    answers, _ = collect(role, 1)
    done = answers[ident].done
    assert (done["finish"], done["err"]) == (ERROR, err) and words in done["message"] and answers[ident].stages == [], (words, done)


@case
def bad_jobs_cost_only_themselves():
    role = start()
    ids = ids_of(PROMPTS[0])
    path = png("q.png", 60, 60, lambda x, y: (x, y, 0))
    seen, fd = look(path, role.ready["rules"])
    pictures = [(seen["plan"], seen["digest"])]
    with_picture = ids_of("<|vision_start|><|image_pad|><|vision_end|>")
    good = put_job(ids)
    submit(role, 1000, ids, max_tokens=100)  # goes on meanwhile
    fails_while_running = [
        (1, FORMAT, "ends within", good[:-1], []),
        (2, FORMAT, "too many", good + b"x", []),
        (3, FORMAT, "", b"", []),
        (4, LIMIT, '"tokens"', b"\xff" * 4 + good[4:], []),
        (5, FORMAT, "max_tokens", put_job(ids, max_tokens=0), []),
        (6, FORMAT, "pictures came with the pixels of 0", put_job(with_picture, pictures), []),
        (7, FORMAT, "pictures came with the pixels of 1", good, [fd]),
        (8, FORMAT, "take 4 bytes", put_job(with_picture, pictures), [memfd(b"abcd")]),
        (9, FORMAT, "not sealed", put_job(with_picture, pictures), [memfd(bytes(os.fstat(fd).st_size), seals=0)]),
        (10, FORMAT, "", put_job(ids, pictures), [fd]),
        (11, FORMAT, "", put_job([10 ** 6]), []),
        (12, FORMAT, "", put_job([-1]), []),
        (13, LIMIT, "", put_job(ids * CTX), []),
        (14, 1, "temperature", put_job(ids, temperature=float("nan")), []),
        (0, 1, "", good, []),
    ]
    answers = {}
    for ident, err, words, payload, fds in fails_while_running:
        role.channel.send(JOB, ident, payload, fds)
    got, _ = collect(role, len(fails_while_running) + 1)
    for ident, err, words, _, _ in fails_while_running:
        done = got[ident].done
        assert (done["finish"], done["err"]) == (ERROR, err) and words in done["message"] and done["message"], (ident, words, done)
        assert got[ident].stages == [] and got[ident].picks == []
    assert got[1000].done["finish"] == LENGTH and got[1000].done["n_output"] == 100
    lying = bytearray(put_job(with_picture, pictures))
    at = 4 + 4 * len(with_picture) + 4
    lying[at:at + 4] = (30000).to_bytes(4, "little")  # the plan's width
    fails(role, 20, FORMAT, "contradicts itself", bytes(lying), [fd])
    os.close(fd)
    role.end()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@case
def it_ends_when_it_is_told_to():
    def busy(role):
        for i in (1, 2):
            submit(role, i, ids_of(PROMPTS[1]), max_tokens=1500)
        collect(role, 1, until=lambda a: any(x.picks for x in a.values()))

    for prepare in (lambda role: None, busy):
        for tell in (lambda role: role.channel.send(SHUTDOWN), lambda role: role.process.send_signal(signal.SIGTERM),
                     lambda role: role.channel.close()):
            role = start()
            prepare(role)
            tell(role)
            assert role.wait(20) == 0 and role.said() == "", role.said()
            assert role.figures()["doing"] == 5, role.figures()
            role.close()


@case
def a_terminals_signals_are_the_servers_affair():
    role = start()
    for number in (signal.SIGINT, signal.SIGHUP):
        role.process.send_signal(number)
        submit(role, 1, ids_of(PROMPTS[0]), max_tokens=2)
        assert collect(role, 1)[0][1].done["finish"] == LENGTH
    role.end()


@case
def a_broken_channel_ends_it():
    for data in (b"\xff" * 16, (0).to_bytes(4, "little") + bytes([LOOK]) + bytes(11)):
        role = start()
        role.channel.sock.sendall(data)
        code = role.wait(20)
        assert code == 1 and "channel" in role.said(), (code, role.said())
        role.close()


@case
def it_dies_with_its_parent():
    """The parent is killed while its end of the socket stays open elsewhere and the worker is busy."""
    ours, theirs = socket.socketpair()
    board = memfd(bytes(BOARD.size))
    pass_fds = [theirs.fileno(), board]
    code = f"import subprocess, sys, time\np = subprocess.Popen(sys.argv[1:], pass_fds={pass_fds})\nprint(p.pid, flush=True)\ntime.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", code, sys.executable, "-c", LAUNCH, ",".join(map(str, pass_fds)), BIN, "worker", *map(str, FLAGS)],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=pass_fds, env=environment())
    child = int(parent.stdout.readline())
    theirs.close()
    channel = Channel(ours)
    assert channel.receive()[0] == READY
    channel.send(JOB, 1, put_job(ids_of(PROMPTS[0]), max_tokens=1500))
    while channel.receive()[0] != TOKENS:
        pass
    parent.kill()
    parent.wait()
    for _ in range(1000):
        if not alive(child):
            break
        time.sleep(0.01)
    else:
        raise AssertionError("it lives on")
    channel.close()
    os.close(board)
    parent.stdout.close()


@case
def the_heart_beats_when_nothing_happens():
    role = start()
    before = role.figures()["heartbeat_ns"]
    time.sleep(1.3)
    after = role.figures()
    assert after["heartbeat_ns"] > before and after["doing"] == 1, (before, after)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert now - after["heartbeat_ns"] < 10 ** 9, (now, after)
    role.end()


@case
def a_reader_that_is_slow_stops_the_work_not_the_heart():
    role = start(send_bytes=4096)
    n = 3000
    for ident in range(1, n + 1):  # each is answered with a sentence that nobody reads
        role.channel.send(JOB, ident, b"1234")
    for ident in (n + 1, n + 2):
        submit(role, ident, ids_of(PROMPTS[0]), max_tokens=8, n_logprobs=20)
    before = role.figures()
    time.sleep(1.3)
    after = role.figures()
    assert after["n_output_tokens"] == 0 and after["n_steps"] == before["n_steps"], (before, after)
    assert time.clock_gettime_ns(time.CLOCK_MONOTONIC) - after["heartbeat_ns"] < 10 ** 9, after
    role.channel.send(CANCEL, n + 2)  # is heard even so
    answers, _ = collect(role, n + 2)
    assert all(answers[i].done["finish"] == ERROR for i in range(1, n + 1))
    assert answers[n + 2].done["finish"] == CANCELLED and answers[n + 2].picks == []
    answer = answers[n + 1]
    assert answer.done["finish"] == LENGTH and len(answer.picks) == 8
    assert all(len(top) == 20 and all(a[1] >= b[1] for a, b in zip(top, top[1:])) for _, _, top in answer.picks)
    role.end()


if __name__ == "__main__":
    main()
