#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 48

static enum oc_err set_int(const struct oc_cli_option *o, const char *text, int64_t *out,
                           struct oc_errinfo *ei) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end)
        return oc_fail(ei, OC_ERR_USAGE, "--%s takes a whole number, not '%s'", o->name, text);
    if (errno == ERANGE || (double)v < o->min || (double)v > o->max)
        return oc_fail(ei, OC_ERR_USAGE, "--%s must be from %.0f to %.0f, but is %s", o->name, o->min, o->max,
                       text);
    *out = v;
    return OC_OK;
}

static enum oc_err set_float(const struct oc_cli_option *o, const char *text, double *out,
                             struct oc_errinfo *ei) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || isnan(v))
        return oc_fail(ei, OC_ERR_USAGE, "--%s takes a number, not '%s'", o->name, text);
    if (v < o->min || v > o->max)
        return oc_fail(ei, OC_ERR_USAGE, "--%s must be from %g to %g, but is %s", o->name, o->min, o->max,
                       text);
    *out = v;
    return OC_OK;
}

static enum oc_err set_value(const struct oc_cli_option *o, const char *text, void *values,
                             struct oc_errinfo *ei) {
    char *at = (char *)values + o->offset;
    switch (o->kind) {
    case OC_CLI_FLAG:
        *(bool *)(void *)at = true;
        return OC_OK;
    case OC_CLI_INT:
        return set_int(o, text, (int64_t *)(void *)at, ei);
    case OC_CLI_FLOAT:
        return set_float(o, text, (double *)(void *)at, ei);
    case OC_CLI_STRING:
        *(const char **)(void *)at = text;
        return OC_OK;
    case OC_CLI_LIST:
        break;
    }
    struct oc_cli_list *list = (struct oc_cli_list *)(void *)at;
    if (list->n >= (int)o->max)
        return oc_fail(ei, OC_ERR_USAGE, "--%s may be given at most %d times", o->name, (int)o->max);
    list->items[list->n++] = text;
    return OC_OK;
}

/* What getopt says with '?' or ':' for argv[optind - 1]. */
static enum oc_err unknown(const struct oc_cli_option *table, int n_options, int code, int value, char **argv,
                           struct oc_errinfo *ei) {
    if (code == ':' && value >= 1000)
        return oc_fail(ei, OC_ERR_USAGE, "--%s needs a value", table[value - 1000].name);
    if (code == ':') return oc_fail(ei, OC_ERR_USAGE, "-%c needs a value", value);
    if (value >= 1000 && value < 1000 + n_options)
        return oc_fail(ei, OC_ERR_USAGE, "--%s takes no value", table[value - 1000].name);
    if (value > 0 && value < 128) return oc_fail(ei, OC_ERR_USAGE, "there is no option -%c", value);
    return oc_fail(ei, OC_ERR_USAGE, "there is no option %s", argv[optind - 1]);
}

enum oc_err oc_cli_options_parse(const struct oc_cli_option *table, int n_options, void *values, int argc,
                                 char **argv, int *first_operand, struct oc_errinfo *ei) {
    struct option longs[MAX_OPTIONS + 1] = {0};
    char letters[2 * MAX_OPTIONS + 2] = ":", *at = letters + 1;
    OC_ASSERT(n_options <= MAX_OPTIONS);
    for (int i = 0; i < n_options; i++) {
        bool takes_value = table[i].kind != OC_CLI_FLAG;
        longs[i] =
            (struct option){table[i].name, takes_value ? required_argument : no_argument, NULL, 1000 + i};
        if (!table[i].letter) continue;
        *at++ = table[i].letter;
        if (takes_value) *at++ = ':';
    }
    *at = 0;
    opterr = 0;
    optind = 0; /* GNU: start afresh */
    for (int code; (code = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (code == '?' || code == ':') return unknown(table, n_options, code, optopt, argv, ei);
        int i = code - 1000;
        for (int k = 0; code < 1000 && k < n_options; k++)
            if (table[k].letter == code) i = k;
        OC_TRY(set_value(&table[i], optarg, values, ei));
    }
    *first_operand = optind;
    return OC_OK;
}

void oc_cli_options_help(const struct oc_cli_option *table, int n_options, FILE *f) {
    for (int i = 0; i < n_options; i++) {
        char left[64], letter[8] = "    ";
        const struct oc_cli_option *o = &table[i];
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        fprintf(f, "  %-32s %s\n", left, o->help);
    }
}
