/* Origins, refusals, limits and the look-up of chat templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/template.h"

static const char messages[] =
    "[{\"role\":\"user\",\"content\":\"uS<x>er\",\"n\":7,\"l\":[\"p\",\"q\"],\"d\":{\"k\":\"v\"}}]";

/* Renders source with the message above; the origin as a string of 0 and 1. */
static enum oc_err render(const char *source, char *text, char *origin, size_t size, struct oc_errinfo *ei) {
    struct oc_arena a;
    struct oc_json m;
    struct oc_chat_template *t;
    struct oc_chat_text out;
    oc_arena_init(&a, OC_MIB);
    assert_int_equal(oc_json_parse(&a, OC_STR(messages), "messages", &m, ei), OC_OK);
    enum oc_err err = oc_chat_template_open(oc_str_from(source), &t, ei);
    if (!err) {
        struct oc_chat_render r = {.messages = &m,
                                   .bos_token = "<s>",
                                   .max_output_bytes = 4096,
                                   .max_steps = 100000,
                                   .max_memory_bytes = 64 * OC_MIB,
                                   .now = 86400,
                                   .utc_offset_s = 3600};
        err = oc_chat_template_render(t, &r, &out, ei);
        assert_int_equal(out.text.n_bytes, out.origin.n_bytes);
        assert_true(out.text.n_bytes < size);
        snprintf(text, size, "%s", oc_buf_str(&out.text));
        for (size_t i = 0; i < out.origin.n_bytes; i++) origin[i] = out.origin.data[i] ? '1' : '0';
        origin[out.origin.n_bytes] = '\0';
        oc_chat_text_free(&out);
        oc_chat_template_close(t);
    }
    oc_arena_free(&a);
    return err;
}

struct origin_case {
    const char *source, *text, *origin;
};

static const struct origin_case origins[] = {
    {"ab{{ bos_token }}", "ab<s>", "11111"},
    {"{{ messages[0].content }}", "uS<x>er", "0000000"},
    {"{{ '<' + messages[0].content + '>' }}", "<uS<x>er>", "100000001"},
    {"{{ 'a' ~ messages[0].role ~ 1 }}", "auser1", "100001"},
    {"{{ messages[0].content[1:4] }}", "S<x", "000"},
    {"{{ ('ab' + messages[0].role)[::-1] }}", "resuba", "000011"},
    {"{{ ('ab' + messages[0].role)|upper }}", "ABUSER", "110000"},
    {"{{ ('ab ' + messages[0].role)|title }}", "Ab User", "1110000"},
    {"{{ (' ' + messages[0].role + ' ')|trim }}", "user", "0000"},
    {"{{ messages[0].content|replace('<x>', '[y]') }}", "uS[y]er", "0011100"},
    {"{{ 'A-B'|replace('-', messages[0].role) }}", "AuserB", "100001"},
    {"{{ messages[0].l|join('<s>') }}", "p<s>q", "01110"},
    {"{{ messages[0].role|tojson }}", "\"user\"", "000000"},
    {"{{ 'x'|tojson }}", "\"x\"", "010"},
    {"{{ [messages[0].role, 'z'] }}", "['user', 'z']", "0000000000100"},
    {"{{ messages[0].n }}{{ messages[0].n + 1 }}{{ 1 + 1 }}{{ messages|length }}", "7821", "0011"},
    {"{{ messages[0].n|string + '|' }}", "7|", "01"},
    {"{% for k, v in messages[0].d.items() %}{{ k }}={{ v }}{% endfor %}", "k=v", "010"},
    {"{% set x %}<{{ messages[0].role }}>{% endset %}{{ x }}", "<user>", "100001"},
    {"{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(messages[0].role) }}", "[user]", "100001"},
    {"{{ '%s!' % messages[0].role }}", "user!", "00001"},
    {"{{ '<{}>'.format(messages[0].role) }}", "<user>", "100001"},
    {"{{ messages[0].content.split('<')[0] }}<", "uS<", "001"},
    {"{{ ('a\\n' + messages[0].role)|indent(1) }}", "a\n user", "1110000"},
    {"{{ messages[0].content|escape }}", "uS&lt;x&gt;er", "0000000000000"},
    {"{{ messages[0].missing|default('<d>') }}", "<d>", "111"},
    {"{{ messages[0].role.capitalize() }}{{ strftime_now('%H') }}", "User01", "000011"},
    {"{{ messages[0].l|last if messages[0].role == 'user' else '' }}", "q", "0"},
    {"{{ messages[0]|list|first }}", "role", "0000"},
};

static void test_origins(void **state) {
    (void)state;
    char text[5000], origin[5000];
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof origins / sizeof *origins; i++) {
        if (render(origins[i].source, text, origin, sizeof text, &ei))
            fail_msg("%s: %s", origins[i].source, ei.msg);
        if (strcmp(text, origins[i].text) || strcmp(origin, origins[i].origin)) {
            fail_msg("%s: '%s' with %s", origins[i].source, text, origin);
        }
    }
}

struct refusal {
    const char *source;
    enum oc_err code;
    const char *words;
};

static const struct refusal refusals[] = {
    {"a\n{{ x|nosuch }}", OC_ERR_UNSUPPORTED, "line 2: this build has no filter 'nosuch'"},
    {"{{ x is nosuch }}", OC_ERR_UNSUPPORTED, "this build has no test 'nosuch'"},
    {"\n\n{% include 'x' %}", OC_ERR_UNSUPPORTED, "line 3: this build knows no tag 'include'"},
    {"{% if x %}", OC_ERR_FORMAT, "ends before"},
    {"{% endif %}", OC_ERR_UNSUPPORTED, "endif"},
    {"{{ 'a", OC_ERR_FORMAT, "a string that starts here does not end"},
    {"{{ (1 }}", OC_ERR_FORMAT, "closes nothing"},
    {"{# x", OC_ERR_FORMAT, "comment"},
    {"{{ 1 +", OC_ERR_FORMAT, "does not end"},
    {"{{ 1 + }}", OC_ERR_FORMAT, "an expression is missing"},
    {"{% break %}", OC_ERR_FORMAT, "outside of a loop"},
    {"{{ nope.x }}", OC_ERR_FORMAT, "'nope' is undefined"},
    {"{{ messages[0].zip.zap }}", OC_ERR_FORMAT, "no attribute 'zip'"},
    {"{{ [].append(1) }}", OC_ERR_FORMAT, "may not be used"},
    {"{{ ''.__class__.x }}", OC_ERR_FORMAT, "may not be used"},
    {"{{ 1 + 'a' }}", OC_ERR_FORMAT, "does not work on"},
    {"{{ 1 // 0 }}", OC_ERR_FORMAT, "division by zero"},
    {"\n{{ raise_exception('no ' ~ messages[0].role) }}", OC_ERR_USAGE,
     "line 2: the template refuses these messages: no user"},
    {"{{ 9223372036854775807 + 1 }}", OC_ERR_LIMIT, "64 bits"},
    {"{{ range(100001) }}", OC_ERR_LIMIT, "range"},
    {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", OC_ERR_LIMIT, "steps"},
    {"{{ 'x' * 5000 }}", OC_ERR_LIMIT, "grows past"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", OC_ERR_LIMIT, "too deep"},
    {"{% set ns = namespace(x=1) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
     OC_ERR_LIMIT, "too deep"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
     OC_ERR_LIMIT, ""},
    {"\xff", OC_ERR_FORMAT, "UTF-8"},
};

static void test_refusals(void **state) {
    (void)state;
    char text[5000], origin[5000];
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct oc_errinfo ei = {0};
        enum oc_err err = render(refusals[i].source, text, origin, sizeof text, &ei);
        if (err != refusals[i].code || !strstr(ei.msg, refusals[i].words)) {
            fail_msg("%s: %s, '%s'", refusals[i].source, oc_err_name(err), ei.msg);
        }
    }
}

static void test_nesting(void **state) {
    (void)state;
    static const char *const opens[] = {"{{ ", "{{ ", "", "{{ "}, *const repeats[] = {"(", "[", "{% if 1 %}",
                                                                                      "-"};
    for (size_t i = 0; i < 4; i++) {
        char source[20000] = "", text[5000], origin[5000];
        struct oc_errinfo ei;
        strcat(source, opens[i]);
        for (int k = 0; k < 1000; k++) strcat(source, repeats[i]);
        strcat(source, "1 }}");
        assert_int_equal(render(source, text, origin, sizeof text, &ei), OC_ERR_LIMIT);
    }
}

static void test_capabilities(void **state) {
    (void)state;
    static const struct {
        const char *source;
        bool text, parts;
    } cases[] = {
        {"{{ messages[0].content }}", true, false},
        {"{% for p in messages[0].content %}{{ p.text }}{% endfor %}", false, true},
        {"{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{{ "
         "messages[0].content[0].text }}{% endif %}",
         true, true},
        {"{{ raise_exception('never') }}", true, false},
    };
    for (size_t i = 0; i < 4; i++) {
        struct oc_chat_template *t;
        assert_int_equal(oc_chat_template_open(oc_str_from(cases[i].source), &t, NULL), OC_OK);
        assert_int_equal(oc_chat_template_takes_text(t), cases[i].text);
        assert_int_equal(oc_chat_template_takes_parts(t), cases[i].parts);
        oc_chat_template_close(t);
    }
}

static void put_file(const char *dir, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect_found(const char *dir, const char *want) {
    struct oc_arena a;
    struct oc_str s;
    struct oc_errinfo ei;
    oc_arena_init(&a, OC_MIB);
    enum oc_err err = oc_chat_template_find(&a, dir, &s, &ei);
    if (want) {
        assert_int_equal(err, OC_OK);
        assert_true(oc_str_is(s, want));
    } else {
        assert_int_equal(err, OC_ERR_NOT_FOUND);
        assert_non_null(strstr(ei.msg, "no chat template"));
    }
    oc_arena_free(&a);
}

static void test_find(void **state) {
    (void)state;
    char dir[] = OC_TEST_TMP "/template-XXXXXX", path[600];
    static const char *const files[] = {"tokenizer_config.json", "chat_template.json", "chat_template.jinja"};
    assert_non_null(mkdtemp(dir));
    expect_found(dir, NULL);
    put_file(dir, files[0], "{\"chat_template\": null}");
    expect_found(dir, NULL);
    put_file(dir, files[0], "{\"chat_template\": \"one\"}");
    expect_found(dir, "one");
    put_file(dir, files[0],
             "{\"chat_template\": "
             "[{\"name\":\"tool_use\",\"template\":\"t\"},{\"name\":\"default\",\"template\":\"two\"}]}");
    expect_found(dir, "two");
    put_file(dir, files[1], "{\"chat_template\": \"three\"}");
    expect_found(dir, "three");
    put_file(dir, files[2], "four");
    expect_found(dir, "four");
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_origins), cmocka_unit_test(test_refusals),     cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_find),    cmocka_unit_test(test_capabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
