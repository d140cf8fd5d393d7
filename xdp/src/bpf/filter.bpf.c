/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Steers the datagrams of one UDP port of this machine to the AF_XDP socket of the queue that they came in on.
 * Everything else passes to the kernel untouched, and so does a datagram whose queue has no socket.
 */
#include "parse.h"

/* Most receive queues of a device that are served. */
#define QUEUES_MAX 64
/* Most addresses of the interface. */
#define ADDRESSES_MAX 1024

/* Set before loading. */
const volatile __u16 port = 0;
const volatile __u16 vlan = VLAN_NONE;

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, QUEUES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

/* Addresses that datagrams are taken for. A machine that routes for others must not swallow theirs. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, ADDRESSES_MAX);
    __type(key, struct address);
    __type(value, __u8);
} addresses SEC(".maps");

SEC("xdp")
int filter(struct xdp_md *ctx)
{
    struct udp_packet packet;

    if (parse_udp(ctx, &packet) != PARSE_UDP)
        return XDP_PASS;
    if (packet.udp->dest != bpf_htons(port) || packet.vlan != vlan)
        return XDP_PASS;
    struct address address = destination_of(&packet);
    if (!bpf_map_lookup_elem(&addresses, &address))
        return XDP_PASS;
    /* Without a socket on this queue the lower bits of the flags are the verdict. */
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

/* Only helpers that any licence may use are called; the kernel wants to be told all the same. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
