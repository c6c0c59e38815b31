"""Help, version, and wrong usage: exit code 2 and one sentence that says what is wrong."""
from harness import case, environment, fails, main, ocellus


@case
def help_is_on_stdout():
    for args in (["--help"], ["-h"], ["help"]):
        r = ocellus(*args)
        assert r.code == 0 and "usage: ocellus" in r.out and "inspect" in r.out and r.err == "", r
        assert "serve" in r.out and "chat" not in r.out, "the help names what is there, not what is planned"
    for args in (["help", "run"], ["run", "--help"], ["run", "-h"]):
        r = ocellus(*args)
        assert r.code == 0 and "usage: ocellus run" in r.out and "--max-tokens" in r.out and r.err == "", r
    for command in ("inspect", "serve"):
        r = ocellus("help", command)
        assert r.code == 0 and f"usage: ocellus {command}" in r.out, r


@case
def every_option_of_the_help_is_taken():
    for command in ("run", "inspect"):
        lines = [line for line in ocellus("help", command).out.splitlines() if line.strip().startswith("-")]
        assert len(lines) >= 6
        for line in lines:
            option = [w for w in line.split() if w.startswith("--")][0]
            r = ocellus(command, option, env=environment(OCELLUS_MODELS="/nonexistent"))
            assert r.code in (1, 2) and "there is no option" not in r.err, (option, r)


@case
def no_help_line_is_too_long():
    for args in ([], ["run"], ["inspect"], ["serve"]):
        for line in ocellus("help", *args).out.splitlines():
            assert len(line) <= 110, line


@case
def version_is_one_line():
    r = ocellus("--version")
    assert r.code == 0 and r.out.startswith("ocellus 0.") and r.out.count("\n") == 1, r


@case
def without_a_command_the_help_is_an_error():
    r = ocellus()
    assert r.code == 2 and r.out == "" and "usage:" in r.err, r


@case
def unknown_commands_are_named():
    fails(2, "'look'", "look")
    fails(2, "'look'", "help", "look")


@case
def planned_commands_say_so():
    for name in "chat pull list rm verify bench recommend quantize doctor".split():
        fails(2, [f"'{name}'", "planned"], name)
        fails(2, [f"'{name}'", "planned"], "help", name)


@case
def wrong_options_are_named():
    fails(2, "--colour", "run", "--colour", "red", "x")
    fails(2, "-q", "run", "-q", "x")
    fails(2, ["--max-tokens", "value"], "run", "x", "--max-tokens")
    fails(2, ["-i", "value"], "run", "x", "-i")
    fails(2, ["--json", "no value"], "run", "--json=yes", "x")
    fails(2, ["--max-tokens", "'ten'"], "run", "--max-tokens", "ten", "x")
    fails(2, ["--max-tokens", "0"], "run", "--max-tokens", "0", "x")
    fails(2, ["--max-tokens", "99999999999999999999"], "run", "--max-tokens", "99999999999999999999", "x")
    fails(2, ["--temperature", "'hot'"], "run", "--temperature", "hot", "x")
    fails(2, ["--temperature", "-1"], "run", "--temperature", "-1", "x")
    fails(2, ["--temperature", "'nan'"], "run", "--temperature", "nan", "x")
    fails(2, "--top-p", "run", "--top-p", "0", "x")
    fails(2, "--top-p", "run", "--top-p", "1.1", "x")
    fails(2, ["--logprobs", "20"], "run", "--logprobs", "21", "x")
    fails(2, "--threads", "run", "--threads", "0", "x")
    fails(2, "--seed", "run", "--seed", "-5", "x")


@case
def the_prompt_is_given_once():
    fails(2, "no PROMPT", "run")
    fails(2, ["2 prompts", "quotes"], "run", "two", "words")
    fails(2, "not both", "run", "--messages", "m.json", "x")
    fails(2, "--image", "run", "--messages", "m.json", "-i", "a.png")
    fails(2, "--system", "run", "--messages", "m.json", "--system", "x")
    fails(2, "--raw", "run", "--raw", "--system", "x", "x")
    fails(2, "--stop", "run", "--stop", "", "x")
    fails(2, ["--stop", "4"], "run", *["--stop", "x"] * 5, "x")
    fails(2, "--min-pixels", "run", "--min-pixels", "100000", "--max-pixels", "1000", "x")
    fails(2, "one MODEL", "inspect", "a", "b")


if __name__ == "__main__":
    main()
