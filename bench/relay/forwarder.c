// The floor of a forwarder in user space: receives up to 64 datagrams at a time, sends each to the other peer.
// Usage: forwarder ADDRESS PORT PEER_A PORT_A PEER_B PORT_B [only]. What does not come from B goes to B. No lookup, no
// check, no limit. With `only` the kernel refuses, at the socket, what comes from neither address.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <string.h>

#include "peers.h"

enum { BATCH = 64, SIZE = 2048 };

// The cheapest that keeps a flood out of a queue: one look at the source address (BPF as of 1992).
static int take_only(int fd, const struct sockaddr_in *a, const struct sockaddr_in *b) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)SKF_NET_OFF + 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(a->sin_addr.s_addr), 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(b->sin_addr.s_addr), 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, ~0u),
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int main(int argc, char **argv) {
    if (argc != 7 && (argc != 8 || strcmp(argv[7], "only") != 0)) return 2;
    struct sockaddr_in local = at(argv[1], argv[2]), a = at(argv[3], argv[4]), b = at(argv[5], argv[6]);
    int fd = open_at(&local);
    if (fd < 0) return 1;
    if (argc == 8 && take_only(fd, &a, &b) != 0) return perror("filter"), 1;
    static char bytes[BATCH][SIZE];
    static struct sockaddr_in from[BATCH];
    static struct iovec payload[BATCH];
    static struct mmsghdr messages[BATCH];
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            payload[i] = (struct iovec){bytes[i], SIZE};
            messages[i].msg_hdr = (struct msghdr){&from[i], sizeof from[i], &payload[i], 1, 0, 0, 0};
        }
        int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, 0);
        for (int i = 0; i < received; i++) {
            payload[i].iov_len = messages[i].msg_len;
            messages[i].msg_hdr.msg_name = same(&from[i], &b) ? &a : &b;
        }
        send_all(fd, messages, received);
    }
}
