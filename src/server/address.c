#include "server/address.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

/* The special-purpose registries of IANA (iana-ipv4-special-registry, iana-ipv6-special-registry) and the
 * multicast and reserved space beside them. Entries that the registries call globally reachable (AS112, AMT,
 * anycast of protocols) are in too: no picture lives there. */
static const struct v4_range {
    uint32_t net;
    int bits;
    const char *name;
} v4_ranges[] = {
    {0x00000000, 8, "this network"},          /* 0.0.0.0/8 */
    {0x0A000000, 8, "private"},               /* 10.0.0.0/8 */
    {0x64400000, 10, "shared address space"}, /* 100.64.0.0/10 */
    {0x7F000000, 8, "loopback"},              /* 127.0.0.0/8 */
    {0xA9FE0000, 16, "link-local"},           /* 169.254.0.0/16 */
    {0xAC100000, 12, "private"},              /* 172.16.0.0/12 */
    {0xC0000000, 24, "IETF protocols"},       /* 192.0.0.0/24 */
    {0xC0000200, 24, "documentation"},        /* 192.0.2.0/24 */
    {0xC01FC400, 24, "AS112"},                /* 192.31.196.0/24 */
    {0xC034C100, 24, "AMT"},                  /* 192.52.193.0/24 */
    {0xC0586300, 24, "6to4 relays"},          /* 192.88.99.0/24 */
    {0xC0A80000, 16, "private"},              /* 192.168.0.0/16 */
    {0xC0AF3000, 24, "AS112"},                /* 192.175.48.0/24 */
    {0xC6120000, 15, "benchmarking"},         /* 198.18.0.0/15 */
    {0xC6336400, 24, "documentation"},        /* 198.51.100.0/24 */
    {0xCB007100, 24, "documentation"},        /* 203.0.113.0/24 */
    {0xE0000000, 4, "multicast"},             /* 224.0.0.0/4 */
    {0xFFFFFFFF, 32, "broadcast"},            /* 255.255.255.255 */
    {0xF0000000, 4, "reserved"},              /* 240.0.0.0/4 */
};

/* By the first 64 bits: no entry is longer but those that v6_verdict() looks into. */
static const struct v6_range {
    uint64_t high;
    int bits;
    const char *name;
} v6_ranges[] = {
    {0x0064FF9B00010000, 48, "local translation"}, /* 64:ff9b:1::/48 */
    {0x0100000000000000, 64, "discard"},           /* 100::/64 */
    {0x0100000000000001, 64, "dummy prefix"},      /* 100:0:0:1::/64 */
    {0x2001000200000000, 48, "benchmarking"},      /* 2001:2::/48 */
    {0x2001000300000000, 32, "AMT"},               /* 2001:3::/32 */
    {0x2001000401120000, 48, "AS112"},             /* 2001:4:112::/48 */
    {0x2001001000000000, 28, "ORCHID"},            /* 2001:10::/28 */
    {0x2001002000000000, 28, "ORCHID"},            /* 2001:20::/28 */
    {0x2001003000000000, 28, "drone identifiers"}, /* 2001:30::/28 */
    {0x2001000000000000, 23, "IETF protocols"},    /* 2001::/23 */
    {0x20010DB800000000, 32, "documentation"},     /* 2001:db8::/32 */
    {0x2620004F80000000, 48, "AS112"},             /* 2620:4f:8000::/48 */
    {0x3FFF000000000000, 20, "documentation"},     /* 3fff::/20 */
    {0x5F00000000000000, 16, "segment routing"},   /* 5f00::/16 */
    {0xFC00000000000000, 7, "unique local"},       /* fc00::/7 */
    {0xFE80000000000000, 10, "link-local"},        /* fe80::/10 */
    {0xFEC0000000000000, 10, "site-local"},        /* fec0::/10 */
    {0xFF00000000000000, 8, "multicast"},          /* ff00::/8 */
};

/* The name of the range that holds it; NULL: none, it is global. */
static const char *v4_range_of(uint32_t a) {
    for (size_t i = 0; i < sizeof v4_ranges / sizeof v4_ranges[0]; i++)
        if ((a ^ v4_ranges[i].net) >> (32 - v4_ranges[i].bits) == 0) return v4_ranges[i].name;
    return NULL;
}

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p) {
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static const char *v6_range_of(uint64_t high) {
    for (size_t i = 0; i < sizeof v6_ranges / sizeof v6_ranges[0]; i++)
        if ((high ^ v6_ranges[i].high) >> (64 - v6_ranges[i].bits) == 0) return v6_ranges[i].name;
    if (high >> 61 != 1) return "not global unicast"; /* all that IANA has given out so far is in 2000::/3 */
    return NULL;
}

/* ISATAP (RFC 5214): any prefix, then 0000:5efe or 0200:5efe and an IPv4 address. */
static bool is_isatap(const uint8_t *p) {
    return (p[8] & 0xFD) == 0 && p[9] == 0 && p[10] == 0x5E && p[11] == 0xFE;
}

static const char *v6_verdict(const uint8_t p[16]) {
    static const uint8_t zero[16] = {0};
    uint64_t high = be64(p);
    const char *why = NULL;
    if (high == 0 && be64(p + 8) <= 1) return p[15] ? "loopback" : "unspecified";
    if (high == 0 && be32(p + 8) == 0xFFFF) return v4_range_of(be32(p + 12)); /* ::ffff:0:0/96, mapped */
    if (memcmp(p, zero, 12) == 0) return v4_range_of(be32(p + 12));           /* ::/96, compatible */
    if (high == 0x0064FF9B00000000 && be32(p + 8) == 0) return v4_range_of(be32(p + 12)); /* NAT64 */
    if (high >> 48 == 0x2002) why = v4_range_of(be32(p + 2));                             /* 6to4 */
    if (high >> 32 == 0x20010000) { /* Teredo: its server, its client */
        why = v4_range_of(be32(p + 4));
        return why ? why : v4_range_of(~be32(p + 12));
    }
    if (!why && is_isatap(p)) why = v4_range_of(be32(p + 12));
    return why ? why : v6_range_of(high);
}

bool oc_address_is_global(const struct sockaddr *a, socklen_t len, const char **why) {
    *why = "no internet address";
    if (len < (socklen_t)sizeof a->sa_family) return false;
    if (a->sa_family == AF_INET && len >= (socklen_t)sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        *why = v4_range_of(ntohl(in.sin_addr.s_addr));
    } else if (a->sa_family == AF_INET6 && len >= (socklen_t)sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof in6);
        *why = v6_verdict(in6.sin6_addr.s6_addr);
    }
    return *why == NULL;
}
