"""Python's jinja2 set up as transformers sets it up for chat templates: the oracle of src/chat/template.c."""
import copy
import datetime
import json

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1700000000  # 2023-11-14 22:13:20, what strftime_now sees


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(fmt):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(fmt)

    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return env


ENV = environment()
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def render(case):
    """{"text": ...} or {"error": ...} for a case {template, messages, tools, extra, add_generation_prompt, tokens}."""
    case = copy.deepcopy(case)  # the indent filter of jinja2 can change a list in place
    try:
        known = {k: case[k] for k in TOKENS if k in case}
        text = ENV.from_string(case["template"]).render(
            messages=case.get("messages"), tools=case.get("tools"), documents=None,
            add_generation_prompt=case.get("add_generation_prompt", False), **known, **case.get("extra", {}))
        text.encode("utf-8")
        return {"text": text}
    except Exception as e:  # every way to fail counts as one
        return {"error": f"{type(e).__name__}: {e}"}
