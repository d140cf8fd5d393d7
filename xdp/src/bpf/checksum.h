/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Checksums of the Internet (RFC 1071), whole and changed (RFC 1624). Owns nothing. Sums are of words as they lie in
 * memory, whatever its byte order, because the sum does not care once it is folded.
 */
#ifndef WAVRY_CHECKSUM_H
#define WAVRY_CHECKSUM_H

#include "parse.h"

/* Bytes of the longest datagram that is summed whole. */
#define SUMMED_MAX 1536
/* Bytes that are summed at a time. */
#define SUM_PIECE 64

static __always_inline __u16 fold(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* What replacing a word adds to a sum. */
static __always_inline __u64 replaced(__u32 old, __u32 new)
{
    return (__u64)(__u32)~old + new;
}

/* The same for 16 bits. */
static __always_inline __u64 replaced16(__u16 old, __u16 new)
{
    return (__u64)(__u16)~old + new;
}

/* A checksum after words of what it covers were replaced (RFC 1624, equation 3). */
static __always_inline __u16 changed(__u16 check, __u64 replacements)
{
    return ~fold((__u16)~check + replacements);
}

/* The sum of the words that a UDP checksum covers and that are not in the datagram. */
static __always_inline __u64 pseudo_sum(const struct udp_packet *packet)
{
    __u64 sum = packet->udp->len + bpf_htons(IPPROTO_UDP);

    if (packet->version == 4)
        return sum + packet->ip4->saddr + packet->ip4->daddr;
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum += (__u64)packet->ip6->saddr.in6_u.u6_addr32[i] + packet->ip6->daddr.in6_u.u6_addr32[i];
    return sum;
}

/* The sum of a part of the frame, folded; negative if it is too long. A global function, which the verifier follows once
 * by itself and not from each of the places where its caller can be. It reads copies: a pointer that moves through a
 * packet would be another place with every step. */
__noinline int sum_of(struct xdp_md *ctx, __u32 at, __u32 len)
{
    __u32 piece[SUM_PIECE / 4];
    __u64 sum = 0;

    for (int i = 0; i < SUMMED_MAX / SUM_PIECE && len >= SUM_PIECE; i++) {
        if (bpf_xdp_load_bytes(ctx, at, piece, SUM_PIECE))
            return -1;
#pragma unroll
        for (int word = 0; word < SUM_PIECE / 4; word++)
            sum += piece[word];
        at += SUM_PIECE;
        len -= SUM_PIECE;
    }
    if (len >= SUM_PIECE)
        return -1;
    if (len) {
        __builtin_memset(piece, 0, sizeof(piece));
        /* From 1 to SUM_PIECE, as it is already, but so that the verifier of Linux 6.1 sees it too. */
        asm volatile("" : "+r"(len));
        len = ((len - 1) & (SUM_PIECE - 1)) + 1;
        if (bpf_xdp_load_bytes(ctx, at, piece, len))
            return -1;
#pragma unroll
        for (int word = 0; word < SUM_PIECE / 4; word++)
            sum += piece[word];
    }
    return fold(sum);
}

/* Adds the UDP header and payload to a sum; false if they are too long. */
static __always_inline bool add_datagram(struct xdp_md *ctx, const struct udp_packet *packet, __u64 *sum)
{
    __u32 at = packet->payload_at - sizeof(struct udphdr);
    int datagram = sum_of(ctx, at, packet->payload_len + sizeof(struct udphdr));

    if (datagram < 0)
        return false;
    *sum += datagram;
    return true;
}

#endif
