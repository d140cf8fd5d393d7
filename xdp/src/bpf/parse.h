/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Finds the UDP datagram in a frame. Owns nothing, changes nothing. Invariant: after PARSE_UDP, the headers
 * that `struct udp_packet` points to and the bytes up to `payload` lie within the frame, and the frame has
 * `payload_len` bytes from `payload` on. `src/packet.rs` is the same decision in Rust; the two are compared
 * packet by packet.
 *
 * What is unusual but legal (IP options, IPv6 extension headers, fragments, two VLAN tags) is left to the
 * kernel's own stack, which knows all of it.
 */
#ifndef WAVRY_PARSE_H
#define WAVRY_PARSE_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* IPv4: flag "more fragments" and the offset (RFC 791). */
#define IPV4_FRAGMENT_BITS 0x3fff
/* Identifier in an 802.1Q tag. */
#define VLAN_ID_BITS 0x0fff
/* `vlan` of a frame without a tag. No tag has this identifier. */
#define VLAN_NONE 0xffff

struct vlan_tag {
    __be16 tci;
    __be16 protocol;
};

/* An IPv6 address, or an IPv4 one mapped into it (RFC 4291, 2.5.5.2). */
struct address {
    __u32 words[4];
};

struct udp_packet {
    struct ethhdr *eth;
    /* The one that `version` says. Not NULL for the other: the verifier does not learn from comparing a packet
     * pointer with NULL. */
    union {
        struct iphdr *ip4;
        struct ipv6hdr *ip6;
    };
    struct udphdr *udp;
    __u8 *payload;
    __u16 payload_len;
    __u16 payload_at; /* in the frame */
    __u16 padding; /* bytes of the frame behind the payload */
    __u64 version; /* 4 or 6; a whole word, which the verifier keeps in mind when it lies on the stack */
    __u16 vlan; /* VLAN_NONE, or the identifier of the one tag */
};

enum parse {
    PARSE_UDP,       /* a whole UDP datagram without anything unusual */
    PARSE_NOT_UDP,   /* another protocol */
    PARSE_UNUSUAL,   /* legal, but more than is looked at here */
    PARSE_MALFORMED, /* headers that say more than the frame has, or contradict each other */
};

static __always_inline enum parse parse_udp(struct xdp_md *ctx, struct udp_packet *packet)
{
    __u8 *data = (__u8 *)(long)ctx->data;
    __u8 *end = (__u8 *)(long)ctx->data_end;
    __u8 *at = data;
    __u16 rest; /* bytes of the datagram by the IP header */
    __u64 offset = sizeof(struct ethhdr) + sizeof(struct udphdr); /* of the payload, once all headers are seen */

    packet->eth = (struct ethhdr *)at;
    at += sizeof(struct ethhdr);
    if (at > end)
        return PARSE_MALFORMED;
    __be16 protocol = packet->eth->h_proto;
    packet->vlan = VLAN_NONE;
    if (protocol == bpf_htons(ETH_P_8021Q)) {
        struct vlan_tag *tag = (struct vlan_tag *)at;
        at += sizeof(*tag);
        if (at > end)
            return PARSE_MALFORMED;
        packet->vlan = bpf_ntohs(tag->tci) & VLAN_ID_BITS;
        offset += sizeof(*tag);
        protocol = tag->protocol;
    }
    if (protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD))
        return PARSE_UNUSUAL;

    if (protocol == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = (struct iphdr *)at;
        at += sizeof(*ip);
        if (at > end)
            return PARSE_MALFORMED;
        if (ip->version != 4 || ip->ihl < 5)
            return PARSE_MALFORMED;
        if (ip->protocol != IPPROTO_UDP)
            return PARSE_NOT_UDP;
        if (ip->ihl != 5 || (ip->frag_off & bpf_htons(IPV4_FRAGMENT_BITS)))
            return PARSE_UNUSUAL;
        __u16 total = bpf_ntohs(ip->tot_len);
        if (total < sizeof(*ip))
            return PARSE_MALFORMED;
        rest = total - sizeof(*ip);
        packet->ip4 = ip;
        packet->version = 4;
        offset += sizeof(*ip);
    } else if (protocol == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = (struct ipv6hdr *)at;
        at += sizeof(*ip);
        if (at > end)
            return PARSE_MALFORMED;
        if (ip->version != 6)
            return PARSE_MALFORMED;
        if (ip->nexthdr != IPPROTO_UDP) {
            switch (ip->nexthdr) {
            case IPPROTO_HOPOPTS:
            case IPPROTO_ROUTING:
            case IPPROTO_FRAGMENT:
            case IPPROTO_DSTOPTS:
                return PARSE_UNUSUAL;
            }
            return PARSE_NOT_UDP;
        }
        rest = bpf_ntohs(ip->payload_len);
        packet->ip6 = ip;
        packet->version = 6;
        offset += sizeof(*ip);
    } else {
        return PARSE_NOT_UDP;
    }

    packet->udp = (struct udphdr *)at;
    at += sizeof(struct udphdr);
    if (at > end || rest < sizeof(struct udphdr))
        return PARSE_MALFORMED;
    __u16 len = bpf_ntohs(packet->udp->len);
    if (len < sizeof(struct udphdr) || len > rest)
        return PARSE_MALFORMED;
    packet->payload = at;
    packet->payload_len = len - sizeof(struct udphdr);
    /* Ethernet pads short frames: there may be more bytes, but not fewer. In numbers, because adding an unknown
     * length to a packet pointer, or subtracting two, needs CAP_PERFMON. */
    __u64 frame = bpf_xdp_get_buff_len(ctx);
    if (offset + packet->payload_len > frame)
        return PARSE_MALFORMED;
    packet->payload_at = offset;
    packet->padding = frame - offset - packet->payload_len;
    return PARSE_UDP;
}

static __always_inline struct address mapped_v4(__be32 ip)
{
    struct address address = { { 0, 0, bpf_htonl(0x0000ffff), ip } };
    return address;
}

static __always_inline struct address source_of(const struct udp_packet *packet)
{
    struct address address;
    if (packet->version == 4)
        return mapped_v4(packet->ip4->saddr);
    __builtin_memcpy(&address, &packet->ip6->saddr, sizeof(address));
    return address;
}

static __always_inline struct address destination_of(const struct udp_packet *packet)
{
    struct address address;
    if (packet->version == 4)
        return mapped_v4(packet->ip4->daddr);
    __builtin_memcpy(&address, &packet->ip6->daddr, sizeof(address));
    return address;
}

#endif
