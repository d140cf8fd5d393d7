/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Makes a frame into the answer to it: back to where it came from, with another payload. Owns nothing.
 *
 * Invariants: an answer is not longer than the datagram that it answers; its checksums are whole, or left to the device where that of
 * the datagram was.
 */
#ifndef WAVRY_ANSWER_H
#define WAVRY_ANSWER_H

#include "checksum.h"

/* What the relay itself says has this code point (CS5), and all of its hops before it. */
#define ANSWER_TOS 0xa0
#define ANSWER_HOPS 64
#define ANSWER_FRAGMENT 0x4000

/* Whether the source can be that of a datagram from somebody else, as far as its address shows (RFC 1122, 3.2.1.3; RFC
 * 4291, 2.7). Whether it is one of this machine's the caller sees. */
static __always_inline bool can_be_answered(const struct udp_packet *packet)
{
    if (!packet->udp->source || (packet->eth->h_source[0] & 1))
        return false;
    if (packet->version == 4) {
        __u8 first = bpf_ntohl(packet->ip4->saddr) >> 24;
        return first && first != 127 && first < 224;
    }
    const __u32 *words = packet->ip6->saddr.in6_u.u6_addr32;
    return words[0] && (words[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000);
}

/* Makes the frame an answer of so many words. False if it cannot hold them, and then it must not go up either. Not inlined, for the
 * sake of the stack. */
static __noinline bool answer(struct xdp_md *ctx, struct udp_packet *packet, const __u32 *words, int count,
                                   bool is_partial)
{
    __u8 *end = (__u8 *)(long)ctx->data_end;
    __u32 *payload = (__u32 *)packet->payload;
    __u16 len = count * sizeof(__u32);
    __u16 udp_len = len + sizeof(struct udphdr);
    int cut = (int)packet->payload_len + packet->padding - len;
    __u8 mac[ETH_ALEN];
    __u64 sum = 0;

    if (packet->payload + len > end || cut < 0)
        return false;
    for (int i = 0; i < count; i++) {
        payload[i] = words[i];
        sum += words[i];
    }
    __builtin_memcpy(mac, packet->eth->h_source, ETH_ALEN);
    __builtin_memcpy(packet->eth->h_source, packet->eth->h_dest, ETH_ALEN);
    __builtin_memcpy(packet->eth->h_dest, mac, ETH_ALEN);
    if (packet->version == 4) {
        struct iphdr *ip = packet->ip4;
        __be32 source = ip->daddr;
        ip->tos = ANSWER_TOS;
        ip->tot_len = bpf_htons(sizeof(*ip) + udp_len);
        ip->id = 0;
        ip->frag_off = bpf_htons(ANSWER_FRAGMENT);
        ip->ttl = ANSWER_HOPS;
        ip->check = 0;
        ip->daddr = ip->saddr;
        ip->saddr = source;
        __u32 *head = (__u32 *)ip;
        ip->check = ~fold((__u64)head[0] + head[1] + head[2] + head[3] + head[4]);
    } else {
        struct ipv6hdr *ip = packet->ip6;
        *(__be32 *)ip = bpf_htonl(6U << 28 | ANSWER_TOS << 20);
        ip->payload_len = bpf_htons(udp_len);
        ip->hop_limit = ANSWER_HOPS;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            __be32 source = ip->daddr.in6_u.u6_addr32[i];
            ip->daddr.in6_u.u6_addr32[i] = ip->saddr.in6_u.u6_addr32[i];
            ip->saddr.in6_u.u6_addr32[i] = source;
        }
    }
    struct udphdr *udp = packet->udp;
    __be16 port = udp->dest;
    udp->dest = udp->source;
    udp->source = port;
    udp->len = bpf_htons(udp_len);
    if (is_partial) {
        udp->check = fold(pseudo_sum(packet));
    } else {
        __u16 check = ~fold(sum + pseudo_sum(packet) + udp->source + udp->dest + udp->len);
        udp->check = check ? check : 0xffff;
    }
    return !bpf_xdp_adjust_tail(ctx, -cut);
}

#endif
