// The floor of a forwarder in user space that has the kernel merge what it receives (GRO) and cut apart what it sends (GSO): a
// train of datagrams goes to the other peer from where it was received. No lookup, no check, no limit.
// Usage: merging ADDRESS PORT PEER_A PORT_A PEER_B PORT_B. What does not come from B goes to B.
#define _GNU_SOURCE
#include <netinet/udp.h>
#include <string.h>

#include "peers.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { BATCH = 16, SIZE = 65536 };

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
};

// Makes what was received what is to be sent.
static void turn(struct mmsghdr *message, struct sockaddr_in *to) {
    struct msghdr *head = &message->msg_hdr;
    struct cmsghdr *merged = CMSG_FIRSTHDR(head);
    int is_merged = merged && merged->cmsg_level == SOL_UDP && merged->cmsg_type == UDP_GRO;
    int each = is_merged ? *(int *)CMSG_DATA(merged) : 0;

    head->msg_iov->iov_len = message->msg_len;
    head->msg_name = to;
    head->msg_controllen = 0;
    if (each && (unsigned)each < message->msg_len) {
        unsigned short segment = (unsigned short)each;
        merged->cmsg_type = UDP_SEGMENT;
        merged->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(merged), &segment, sizeof segment);
        head->msg_controllen = CMSG_SPACE(sizeof segment);
    }
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    struct sockaddr_in local = at(argv[1], argv[2]), a = at(argv[3], argv[4]), b = at(argv[5], argv[6]);
    int fd = open_at(&local), on = 1;
    if (fd < 0) return 1;
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) != 0) return perror("UDP_GRO"), 1;
    static char bytes[BATCH][SIZE];
    static struct sockaddr_in from[BATCH];
    static union control control[BATCH];
    static struct iovec payload[BATCH];
    static struct mmsghdr messages[BATCH];
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            payload[i] = (struct iovec){bytes[i], SIZE};
            messages[i].msg_hdr =
                (struct msghdr){&from[i], sizeof from[i], &payload[i], 1, &control[i], sizeof control[i], 0};
        }
        int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, 0);
        for (int i = 0; i < received; i++) turn(&messages[i], same(&from[i], &b) ? &a : &b);
        send_all(fd, messages, received);
    }
}
