/* server/notify.h - tells systemd how the service does (sd_notify without libsystemd).
 *
 * One datagram per message to the socket that NOTIFY_SOCKET names (config reads it). Never blocks; a message that
 * cannot be sent is lost, since a server must not fail for its supervisor's sake. */
#ifndef OC_SERVER_NOTIFY_H
#define OC_SERVER_NOTIFY_H

#include <stdbool.h>

/* socket: a path, "@name" for an abstract one; NULL: nobody listens, and every message is a success. message: lines
 * such as "READY=1", "STOPPING=1", "STATUS=Loading x", one newline between them. False when it was not sent. */
bool oc_notify_send(const char *socket, const char *message);

/* "STATUS=text"; control characters in it become blanks. */
bool oc_notify_status(const char *socket, const char *text);

#endif
