#define _GNU_SOURCE /* SOCK_CLOEXEC */
#include "server/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool oc_notify_send(const char *socket_name, const char *message) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!socket_name) return true;
    size_t n = strlen(socket_name), n_message = strlen(message);
    if ((socket_name[0] != '/' && socket_name[0] != '@') || n < 2 || n >= sizeof to.sun_path) return false;
    memcpy(to.sun_path, socket_name, n);
    if (to.sun_path[0] == '@') to.sun_path[0] = '\0'; /* an abstract name starts with NUL */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    ssize_t sent =
        sendto(fd, message, n_message, MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to, len);
    close(fd);
    return sent == (ssize_t)n_message;
}

bool oc_notify_status(const char *socket_name, const char *text) {
    char message[512];
    snprintf(message, sizeof message, "STATUS=%s", text);
    for (char *p = message; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7F) *p = ' ';
    return oc_notify_send(socket_name, message);
}
