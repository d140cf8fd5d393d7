// What the forwarders of this directory have in common: addresses, a socket with long queues, and sending all of a batch.
#ifndef PEERS_H
#define PEERS_H

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct sockaddr_in at(const char *address, const char *port) {
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    inet_pton(AF_INET, address, &found.sin_addr);
    return found;
}

static int same(const struct sockaddr_in *a, const struct sockaddr_in *b) {
    return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
}

// A socket at an address; negative, and told, if there can be none.
static int open_at(const struct sockaddr_in *local) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), queue = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof queue);
    if (bind(fd, (const struct sockaddr *)local, sizeof *local) == 0) return fd;
    perror("bind");
    return -1;
}

static void send_all(int fd, struct mmsghdr *messages, int count) {
    for (int sent = 0; sent < count;) {
        int more = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);
        if (more <= 0) break;
        sent += more;
    }
}

#endif
