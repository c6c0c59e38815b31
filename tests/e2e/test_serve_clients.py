"""ocellus serve with the clients that people have: OpenAI's Python SDK, LangChain, curl; and behind nginx and HAProxy.

The Python clients are those of tests/requirements.txt, in build/venv (tools/test_venv.sh); where they cannot be installed
their cases are skipped.
"""
import contextlib
import functools
import http.client
import json
import os
import subprocess
import sys

from harness import ROOT, Skip, TMP, write
from server_harness import (Server, Shared, Stream, ask, case, data_url, free_ports, image_part, joined,
                            main, need_program, picture, seconds, user, wait_until)

server = Shared()
PICTURE, OTHER = data_url(picture(84, 84, 1)), data_url(picture(112, 56, 2))


@functools.lru_cache(maxsize=1)
def venv_python():
    p = subprocess.run(["sh", os.path.join(ROOT, "tools", "test_venv.sh"), sys.executable], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    return p.stdout.decode().strip() if p.returncode == 0 else None, p.stderr.decode()


PRELUDE = """
import os, sys, time
BASE, MODEL, PICTURE, OTHER = (os.environ[k] for k in ("T_BASE", "T_MODEL", "T_PICTURE", "T_OTHER"))
IMAGE = {"type": "image_url", "image_url": {"url": PICTURE}}
IMAGE2 = {"type": "image_url", "image_url": {"url": OTHER, "detail": "low"}}
MORE = {"ignore_eos": True}
"""
OPENAI = PRELUDE + """
import openai
from openai import OpenAI
client = OpenAI(base_url=BASE, api_key=os.environ.get("T_KEY", "none"), timeout=120)
def user(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]
"""


def sdk(code, s=None, key=None):
    python, why = venv_python()
    if not python:
        raise Skip(f"the Python clients could not be installed: {why.strip()}")
    s = s or server()
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    model = s.get("/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {}).ok().json["data"][0]["id"]
    env.update(T_BASE=f"http://127.0.0.1:{s.port}/v1", T_MODEL=model, T_PICTURE=PICTURE, T_OTHER=OTHER,
               LANGCHAIN_TRACING_V2="false", LANGSMITH_TRACING="false")
    if key:
        env["T_KEY"] = key
    p = subprocess.run([python, "-I", "-c", code], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=seconds(120))
    assert p.returncode == 0, p.stdout.decode()


# ---- OpenAI's SDK ------------------------------------------------------------------------------------------------

@case
def openai_chat():
    sdk(OPENAI + """
a = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=7,
                                   temperature=0, extra_body=MORE)
assert a.choices[0].message.role == "assistant" and a.choices[0].message.content, a
assert a.choices[0].finish_reason == "length" and a.usage.completion_tokens == 7 and a.model == MODEL, a
assert a.usage.prompt_tokens_details.cached_tokens is not None, a
b = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=7,
                                   seed=1, n=2, stop=["never"], logprobs=True, top_logprobs=2, user="me",
                                   presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"1": 1}, extra_body=MORE)
assert len(b.choices) == 2 and len(b.choices[1].logprobs.content[0].top_logprobs) == 2, b
""")


@case
def openai_stream():
    sdk(OPENAI + """
ask = dict(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=30, temperature=0, extra_body=MORE)
whole = client.chat.completions.create(**ask)
text, usage, finish, n = "", None, None, 0
for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
        n += 1
    usage = chunk.usage or usage
assert text == whole.choices[0].message.content and finish == "length" and n > 5, (text, whole)
assert usage.completion_tokens == 30 and usage.prompt_tokens == whole.usage.prompt_tokens, usage
with client.chat.completions.stream(model=MODEL, messages=ask["messages"], max_tokens=10, extra_body=MORE) as stream:
    try:
        for event in stream:
            pass
        stream.get_final_completion()
        raise SystemExit("finish_reason length must reach the helper")
    except openai.LengthFinishReasonError as e:
        assert e.completion.choices[0].message.content and e.completion.choices[0].finish_reason == "length"
""")


@case
def openai_stream_that_is_left():
    sdk(OPENAI + """
for _ in range(5):
    stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Long"}], max_tokens=2000,
                                            stream=True, extra_body=MORE)
    next(iter(stream))
    stream.close()
client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Short"}], max_tokens=2)
""")
    server().wait_idle()


@case
def openai_vision_and_several_pictures():
    sdk(OPENAI + """
def ask(*parts):
    return client.chat.completions.create(model=MODEL, messages=user(*parts), max_tokens=9, temperature=0, extra_body=MORE)
one = ask("What is this?", IMAGE)
two = ask(IMAGE, "and", IMAGE2, "Compare.")
swapped = ask(IMAGE2, "and", IMAGE, "Compare.")
assert one.usage.prompt_tokens_details.image_tokens == 9, one.usage
assert two.usage.prompt_tokens_details.image_tokens == 9 + 8, two.usage
assert two.choices[0].message.content != swapped.choices[0].message.content
""")


@case
def openai_errors():
    sdk(OPENAI + """
def fails(kind, **fields):
    try:
        client.chat.completions.create(**{"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2,
                                          **fields})
    except kind as e:
        return e
    raise SystemExit(f"no {kind.__name__}: {fields}")
e = fails(openai.NotFoundError, model="no/such-model")
assert e.code == "model_not_found" and "no/such-model" in e.message, e
e = fails(openai.BadRequestError, temperature=9)
assert e.param == "temperature" and e.type == "invalid_request_error", (e.param, e.type)
e = fails(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 20000}])
assert e.code == "context_length_exceeded", e
e = fails(openai.BadRequestError, messages=user("x", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}))
assert e.param == "messages[0].content[1].image_url", e.param
e = fails(openai.BadRequestError, response_format={"type": "json_object"}, stream=True)
assert e.param.startswith("response_format"), e.param
e = fails(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
assert e.param.startswith("tools"), e.param
""")


@case
def openai_keys():
    keys = write("client-keys", "right\n")
    with Server(api_keys_file=keys) as s:
        sdk(OPENAI + """
client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=2)
bad = OpenAI(base_url=BASE, api_key="wrong")
try:
    bad.models.list()
    raise SystemExit("a wrong key was taken")
except openai.AuthenticationError as e:
    assert e.code == "invalid_api_key", e
""", s, "right")


@case
def openai_retries():
    """429 with Retry-After is waited out by the SDK."""
    with Server(rate_limit=True, rate_per_minute=60, rate_burst=1) as s:
        sdk(OPENAI + """
began = time.monotonic()
patient, hasty = client.with_options(max_retries=5), client.with_options(max_retries=0)
ask = dict(model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=1)
for _ in range(3):
    patient.chat.completions.create(**ask)
assert time.monotonic() - began > 1
try:
    for _ in range(5):
        hasty.chat.completions.create(**ask)
    raise SystemExit("no RateLimitError")
except openai.RateLimitError as e:
    assert int(e.response.headers["retry-after"]) >= 1
""", s)


@case
def openai_models_and_completions():
    sdk(OPENAI + """
models = client.models.list().data
assert MODEL in [m.id for m in models], models
assert client.models.retrieve(MODEL).id == MODEL
a = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=5, temperature=0, logprobs=1,
                              extra_body=MORE)
assert a.choices[0].text and len(a.choices[0].logprobs.tokens) == 5, a
text = "".join(c.choices[0].text for c in client.completions.create(model=MODEL, prompt="The capital of France is",
               max_tokens=5, temperature=0, stream=True, extra_body=MORE) if c.choices)
assert text == a.choices[0].text, (text, a)
""")


@case
def openai_async_at_once():
    sdk(OPENAI + """
import asyncio
from openai import AsyncOpenAI
async def go():
    c = AsyncOpenAI(base_url=BASE, api_key="none", timeout=120)
    ask = dict(model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0, extra_body=MORE)
    answers = await asyncio.gather(*[c.chat.completions.create(**ask) for _ in range(16)])
    assert len({a.choices[0].message.content for a in answers}) == 1 and len({a.id for a in answers}) == 16
asyncio.run(go())
""")


@case
def langchain_chat():
    sdk(PRELUDE + """
from langchain_openai import ChatOpenAI
from langchain_core.messages import HumanMessage, SystemMessage
llm = ChatOpenAI(base_url=BASE, api_key="none", model=MODEL, temperature=0, max_tokens=12, extra_body=MORE, timeout=120)
a = llm.invoke([SystemMessage("Be brief."), HumanMessage("Hello")])
assert a.content and a.usage_metadata["output_tokens"] == 12 and a.response_metadata["finish_reason"] == "length", a
text = "".join(c.content for c in llm.stream([SystemMessage("Be brief."), HumanMessage("Hello")]))
assert text == a.content, (text, a.content)
p = llm.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, IMAGE])])
assert p.content and p.usage_metadata["input_tokens"] > a.usage_metadata["input_tokens"] - 30, p
assert len(llm.batch(["One", "Two", "Three"])) == 3
""")


# ---- curl --------------------------------------------------------------------------------------------------------

def curl(*args, port=None, path="/v1/chat/completions", body=None):
    exe = need_program("curl")
    command = [exe, "-sS", "--noproxy", "*", "--max-time", str(int(seconds(60))), *args,
               f"http://127.0.0.1:{port or server().port}{path}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    p = subprocess.run(command, input=json.dumps(body).encode() if body is not None else b"", stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=seconds(70))
    assert p.returncode == 0, (p.returncode, p.stderr, p.stdout[:1000])
    return p.stdout.decode()


@case
def curl_asks():
    a = json.loads(curl(body=ask(max_tokens=5)))
    assert a["usage"]["completion_tokens"] == 5, a
    text = curl("-N", body={**ask(max_tokens=5), "stream": True})
    assert text.endswith("data: [DONE]\n\n") and text.count("\n\n") >= 3, text
    big = {"messages": user(image_part(data_url(picture(1200, 1200, 5) + b"\0" * 3_000_000), detail="low"), "x"), "max_tokens": 2}
    assert json.loads(curl(body=big))["images"]  # over a megabyte: curl says Expect: 100-continue
    assert json.loads(curl("-X", "POST", path="/v1/admin/status"))["workers"][0]["pid"] > 0
    assert "HTTP/1.1 200" in curl("-i", "--http2", path="/health"), "an Upgrade is ignored"


@case
def the_seeds_example_works_as_printed():
    """Its request, against --port 8000's twin here: text and a data URL, no max_tokens."""
    with Server(ctx_tokens=512) as s:
        a = json.loads(curl(port=s.port, body={
            "model": s.get("/v1/models").json["data"][0]["id"],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "What is in this picture?"},
                                                      {"type": "image_url", "image_url": {"url": PICTURE}}]}]}))
        assert a["choices"][0]["message"]["content"] is not None, a


# ---- Behind a proxy ----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def in_front(program, config, args, port):
    exe = need_program(program)
    path = write(f"{program}/{program}.conf", config)
    log = open(os.path.join(TMP, program, "log"), "wb")
    p = subprocess.Popen([exe, *[a.replace("CONF", path) for a in args]], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        class Front:
            def __init__(self):
                self.port, self.process = port, p

            def http(self, timeout=60):
                return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds(timeout))
        front = Front()

        def up():
            assert p.poll() is None, open(os.path.join(TMP, program, "log")).read()
            try:
                return curl(port=port, path="/health")
            except AssertionError:
                return None
        wait_until(up, 10, program)
        yield front
    finally:
        p.terminate()
        p.wait(timeout=20)
        log.close()


def nginx():
    (port,) = free_ports(1)
    d = os.path.join(TMP, "nginx")
    return in_front("nginx", f"""
daemon off; master_process off; worker_processes 1; pid {d}/pid; error_log {d}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 100m;
    client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
    upstream ocellus {{ server 127.0.0.1:{server().port}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://ocellus; proxy_http_version 1.1; proxy_set_header Connection "";
                      proxy_set_header Host $http_host; proxy_read_timeout 300s; }}
    }}
}}
""", ["-e", "stderr", "-c", "CONF"], port)


def haproxy():
    (port,) = free_ports(1)
    return in_front("haproxy", f"""
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option http-keep-alive
    option http-no-delay # without it HAProxy gathers the small chunks of a stream for up to 200 ms
    http-reuse always
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    option httpchk GET /health
    http-check expect status 200
    server s 127.0.0.1:{server().port} check inter 500ms
""", ["-db", "-f", "CONF"], port)


def through(front):
    """The same answers as without the proxy; streams flow; leaving is seen; errors arrive whole."""
    s = server()
    want = s.chat(max_tokens=20).ok().text
    for _ in range(5):
        assert json.loads(curl(port=front.port, body=ask(max_tokens=20)))["choices"][0]["message"]["content"] == want
    st = Stream(front, "/v1/chat/completions", {**ask(max_tokens=100), "stream": True})
    chunks = st.chunks()
    assert st.finished and joined(chunks) == s.chat(max_tokens=100).ok().text
    spread = st.times[-1] - st.times[0]
    assert spread > 0.03, f"the proxy kept the stream back: {spread:.3f} s from first to last chunk"
    e = json.loads(curl(port=front.port, body={**ask(), "temperature": 9}))
    assert e["error"]["param"] == "temperature", e
    parts = [image_part(data_url(picture(600, 600, i) + b"\0" * 2_000_000), detail="low") for i in range(3)]
    a = json.loads(curl(port=front.port, body=ask(user(*parts, "x"), max_tokens=2)))
    assert len(a["images"]) == 3, a
    left = Stream(front, "/v1/chat/completions", {**ask("Long", max_tokens=3500), "stream": True})
    assert left.next_text()
    left.close()
    s.wait_idle(5)


@case
def behind_nginx():
    with nginx() as front:
        through(front)


@case
def behind_haproxy():
    with haproxy() as front:
        through(front)


if __name__ == "__main__":
    main()
