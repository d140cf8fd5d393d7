/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The floor of a relay in XDP, for benchmarks: looks up a session, writes new addresses, redirects. No checks.
 * Never part of a product.
 */
#include "checksum.h"

#define SESSIONS_MAX 131072

struct session {
    __u8 id[16];
};

struct receiver {
    __u8 eth_dest[ETH_ALEN];
    __u8 eth_source[ETH_ALEN];
    __be32 source;
    __be32 dest;
    __be16 source_port;
    __be16 dest_port;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, SESSIONS_MAX);
    __type(key, struct session);
    __type(value, struct receiver);
} sessions SEC(".maps");

/* The device that receivers are behind. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} out SEC(".maps");

/* Session ids follow the first four bytes of the payload (RELAY-1, 2). */
#define SESSION_AT 4

SEC("xdp")
int rewrite(struct xdp_md *ctx)
{
    struct udp_packet packet;
    __u8 *end = (__u8 *)(long)ctx->data_end;

    if (parse_udp(ctx, &packet) != PARSE_UDP || packet.version != 4)
        return XDP_PASS;
    if (packet.payload + SESSION_AT + sizeof(struct session) > end)
        return XDP_PASS;
    struct session id = *(struct session *)(packet.payload + SESSION_AT);
    struct receiver *to = bpf_map_lookup_elem(&sessions, &id);
    if (!to)
        return XDP_DROP;
    struct iphdr *ip = packet.ip4;
    struct udphdr *udp = packet.udp;
    __u64 sum = replaced(ip->saddr, to->source) + replaced(ip->daddr, to->dest);
    ip->check = changed(ip->check, sum);
    if (udp->check) {
        sum += replaced16(udp->source, to->source_port) + replaced16(udp->dest, to->dest_port);
        __u16 check = changed(udp->check, sum);
        udp->check = check ? check : 0xffff;
    }
    ip->saddr = to->source;
    ip->daddr = to->dest;
    udp->source = to->source_port;
    udp->dest = to->dest_port;
    __builtin_memcpy(packet.eth->h_dest, to->eth_dest, ETH_ALEN);
    __builtin_memcpy(packet.eth->h_source, to->eth_source, ETH_ALEN);
    return bpf_redirect_map(&out, 0, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
