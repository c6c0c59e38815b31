#!/usr/bin/env python3
"""Tokens a second through `ocellus serve`, seen by a client that streams, against `ocellus run` in a process of its own.

  python3 bench/server_overhead.py [--ocellus PROGRAM] [--model DIR] [--tokens 100] [--rounds 7]

Both take turns, so that what else the machine does meets both; medians, and the median of the rounds' ratios. A stream's
speed is the tokens after the first over the time from its first chunk, which leaves with the first token, to its last;
speculation is off on both sides.
"""
import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROMPT = "Tell me a long story about a house on a hill."


def run_speed(args):
    command = [args.ocellus, "run", "-m", args.model, "--json", "-t", "0", "--ignore-eos", "--speculate", "off", "-c", "1024",
               "-n", str(args.tokens), PROMPT]
    out = subprocess.run(command, capture_output=True, check=True).stdout
    t = json.loads(out)["timings"]
    return 1e3 * (t["n_decode"] - 1) / t["decode_ms"], t["prefill_ms"]


class Server:
    def __init__(self, args):
        command = [args.ocellus, "serve", "-m", args.model, "--port", "0", "--admin-port", "0", "--ctx", "1024", "--parallel", "1",
                   "--speculate", "off"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.port = None
        while self.port is None:
            found = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", self.process.stderr.readline())
            self.port = found and int(found.group(1))
        os.set_blocking(self.process.stderr.fileno(), False)

    def speed(self, args, salt):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        body = {"messages": [{"role": "user", "content": PROMPT + salt}], "max_tokens": args.tokens, "temperature": 0,
                "ignore_eos": True, "stream": True}
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        seen = []
        for line in c.getresponse():
            if line.startswith(b'data: {"'):
                seen.append(time.perf_counter())
        self.process.stderr.read()
        return (args.tokens - 1) / (seen[-1] - seen[0])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ocellus", default=os.path.join(ROOT, "build", "release", "ocellus"))
    ap.add_argument("--model", default=os.path.join(ROOT, "models", "ocellus-tiny-4bit"))
    ap.add_argument("--tokens", type=int, default=100)
    ap.add_argument("--rounds", type=int, default=7)
    args = ap.parse_args()
    server = Server(args)
    try:
        server.speed(args, "")  # loads the model
        rows = [(run_speed(args)[0], server.speed(args, " %d" % i)) for i in range(args.rounds)]
    finally:
        server.process.terminate()
        server.process.wait()
    print("run     %8.2f tok/s" % statistics.median(r[0] for r in rows))
    print("serve   %8.2f tok/s" % statistics.median(r[1] for r in rows))
    print("serve / run, median of %d rounds: %.3f" % (len(rows), statistics.median(r[1] / r[0] for r in rows)))


if __name__ == "__main__":
    main()
