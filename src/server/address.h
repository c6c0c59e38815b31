/* server/address.h - which network addresses a picture may be fetched from.
 *
 * Globally routable unicast only, after the IANA special-purpose registries (RFC 6890 and its updates); IPv4 inside
 * IPv6 (mapped, compatible, NAT64, 6to4, Teredo) is taken out and judged as IPv4. */
#ifndef OC_SERVER_ADDRESS_H
#define OC_SERVER_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/* Says in *why (a constant such as "loopback") what is wrong with the address when it returns false. */
bool oc_address_is_global(const struct sockaddr *a, socklen_t len, const char **why);

#endif
