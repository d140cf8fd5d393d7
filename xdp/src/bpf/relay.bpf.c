/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Forwards the datagrams of a relay's sessions (RELAY-1, 6): finds the session, authenticates, decides, changes the
 * headers and sends on, without the kernel's stack.
 *
 * Owns the states of directions while a session has a generation. What is not a plain FORWARD of such a session goes
 * up to userspace, unchanged; dropped is only what userspace would drop as well: what no session can have sent, what
 * is for a session that is not there beyond a budget, and what a session's own checks refuse.
 *
 * Invariant: a datagram that goes up has changed nothing.
 *
 * Loading it needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN: without it the verifier allows no number that comes
 * from the packet as an index, and has every access masked against speculation.
 */
#include "checksum.h"
#include "direction.h"
#include "parse.h"
#include "relay.h"
#include "siphash.h"

/* RELAY-1, 2. */
#define MAGIC 0x57
#define VERSION 0x01
#define LEASE_PRESENT 0x01
#define LEASE_RENEW 0x04
#define FORWARD 0x10
#define PROBE_REQ 0x20
#define FLAG_ROLE 0x01
#define HEADER_LEN 20
#define PAYLOAD_MAX 1400
#define DATAGRAM_MAX 1500

/* Hops that a datagram may take. What leaves is a new datagram, as it is when userspace sends it. */
#define HOPS 64
/* IPv4: never to be fragmented, so the identification means nothing (RFC 6864). */
#define DONT_FRAGMENT 0x4000

/* Set before loading. */
const volatile __u16 port = 0;
const volatile __u32 absent_per_second = 0; /* and processor */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct session_id);
    __type(value, struct session);
} sessions SEC(".maps");

/* Two for each session. The flag makes values begin at a page, and so each at a cache line. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct state);
} states SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, WAYS_MAX);
    __type(key, __u32);
    __type(value, struct way);
} ways SEC(".maps");

/* The devices of the ways, by the numbers of the ways. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, WAYS_MAX);
    __type(key, __u32);
    __type(value, __u32);
} devices SEC(".maps");

/* Addresses of this machine. What is for others is not judged. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, LOCALS_MAX);
    __type(key, struct address);
    __type(value, __u8);
} locals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct settings);
} settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counters);
} counts SEC(".maps");

/* A FORWARD up to its payload. Halves, because only those are aligned. */
struct forward {
    __u8 magic;
    __u8 version;
    __u8 kind;
    __u8 flags;
    struct session_id session;
    __be32 sequence[2];
    __be32 mac[2];
};

static __always_inline __u64 join(const __be32 halves[2])
{
    return (__u64)bpf_ntohl(halves[0]) << 32 | bpf_ntohl(halves[1]);
}

static __always_inline bool same(const struct address *a, const struct address *b)
{
    return !((a->words[0] ^ b->words[0]) | (a->words[1] ^ b->words[1]) | (a->words[2] ^ b->words[2]) |
             (a->words[3] ^ b->words[3]));
}

static __always_inline bool is_local(const struct udp_packet *packet)
{
    struct address to = destination_of(packet);
    return bpf_map_lookup_elem(&locals, &to);
}

static __always_inline int go_up(struct counters *counters, enum passed reason)
{
    counters->passed[reason]++;
    return XDP_PASS;
}

static __always_inline int drop(struct counters *counters, enum dropped reason)
{
    counters->dropped[reason]++;
    return XDP_DROP;
}

/* What userspace would drop for the same reason, if it is for this machine and is what it looks like. */
static __always_inline int junk(const struct udp_packet *packet, struct counters *counters, enum dropped reason)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);

    if (!set || set->is_generic)
        return go_up(counters, PASSED_UNUSUAL);
    if (!is_local(packet))
        return XDP_PASS;
    return drop(counters, reason);
}

/* A FORWARD for a session that is not in the map. Userspace may tell its sender so, for as many as it has answers. */
static __always_inline int absent(const struct udp_packet *packet, struct counters *counters)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);

    if (!is_local(packet))
        return XDP_PASS;
    if (!set || set->is_incomplete)
        return go_up(counters, PASSED_ABSENT);
    __u64 now = bpf_ktime_get_ns();
    __u64 span = now - counters->absent_at_ns;
    if (span > NANO)
        span = NANO;
    counters->absent_at_ns = now;
    counters->absent_level = filled(counters->absent_level, span, absent_per_second, absent_per_second / 10 + 1);
    if (counters->absent_level < NANO)
        return drop(counters, DROPPED_UNKNOWN_SESSION);
    counters->absent_level -= NANO;
    return go_up(counters, PASSED_ABSENT);
}

/* Whether a frame is for a way: it leaves with the tag that it has now and fits. */
static __always_inline bool takes(const struct way *way, const struct udp_packet *packet)
{
    __u32 len = packet->payload_len + sizeof(struct udphdr);

    len += packet->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
    return way->device && way->vlan == packet->vlan && len <= way->mtu;
}

/* Whether the frame has nothing that would be lost or that nobody would be charged for. */
static __always_inline bool is_plain(const struct udp_packet *packet)
{
    if (packet->padding)
        return false;
    if (packet->version == 4)
        return bpf_ntohs(packet->ip4->tot_len) == bpf_ntohs(packet->udp->len) + sizeof(struct iphdr);
    /* RFC 8200 wants a checksum. */
    return packet->ip6->payload_len == packet->udp->len && packet->udp->check;
}

/* The UDP checksum that goes with new addresses and ports, given what replacing them adds to the sum. */
static __always_inline __u16 udp_check(struct xdp_md *ctx, const struct udp_packet *packet, __u64 addresses,
                                       __u64 ports)
{
    __u32 zero = 0;
    __u16 check = packet->udp->check;
    __u64 sum = pseudo_sum(packet);

    /* A sender on this machine leaves the sum over the datagram to the device and puts only that over addresses
     * and length there, not complemented. One in 65536 whole checksums looks like it. */
    if (check == fold(sum) && add_datagram(ctx, packet, &sum)) {
        struct settings *set = bpf_map_lookup_elem(&settings, &zero);
        /* In generic mode the device still does it afterwards. A whole one would be right already. */
        if (set && set->is_generic && fold(sum) != 0xffff)
            return fold(check + addresses);
        /* The field itself was in the sum. */
        check = ~fold(sum + (__u16)~check);
    }
    check = changed(check, addresses + ports);
    return check ? check : 0xffff;
}

static __always_inline void rewrite(struct xdp_md *ctx, const struct udp_packet *packet, const struct way *way,
                                    const struct peer *to)
{
    __u64 ports = replaced16(packet->udp->source, packet->udp->dest) + replaced16(packet->udp->dest, to->port);
    __u64 addresses = 0;

    if (packet->version == 4) {
        struct iphdr *ip = packet->ip4;
        __be16 hops = bpf_htons(HOPS << 8 | IPPROTO_UDP);
        __be16 *hops_at = (__be16 *)&ip->ttl;
        addresses = replaced(ip->saddr, way->source.words[3]) + replaced(ip->daddr, to->address.words[3]);
        /* Without a checksum it stays. */
        if (packet->udp->check)
            packet->udp->check = udp_check(ctx, packet, addresses, ports);
        ip->check = changed(ip->check, addresses + replaced16(ip->id, 0) + replaced16(*hops_at, hops) +
                                           replaced16(ip->frag_off, bpf_htons(DONT_FRAGMENT)));
        ip->id = 0;
        ip->frag_off = bpf_htons(DONT_FRAGMENT);
        *hops_at = hops;
        ip->saddr = way->source.words[3];
        ip->daddr = to->address.words[3];
    } else {
        struct ipv6hdr *ip = packet->ip6;
#pragma unroll
        for (int i = 0; i < 4; i++)
            addresses += replaced(ip->saddr.in6_u.u6_addr32[i], way->source.words[i]) +
                         replaced(ip->daddr.in6_u.u6_addr32[i], to->address.words[i]);
        packet->udp->check = udp_check(ctx, packet, addresses, ports);
        ip->hop_limit = HOPS;
        __builtin_memcpy(&ip->saddr, &way->source, sizeof(ip->saddr));
        __builtin_memcpy(&ip->daddr, &to->address, sizeof(ip->daddr));
    }
    packet->udp->source = packet->udp->dest;
    packet->udp->dest = to->port;
    __builtin_memcpy(packet->eth->h_dest, way->to_mac, ETH_ALEN);
    __builtin_memcpy(packet->eth->h_source, way->from_mac, ETH_ALEN);
}

/* A well-formed FORWARD. */
static __always_inline int on_forward(struct xdp_md *ctx, struct udp_packet *packet, const struct forward *forward,
                                      struct counters *counters)
{
    struct session_id id = forward->session;
    __u64 sequence = join(forward->sequence);
    __u32 role = forward->flags & FLAG_ROLE;
    __u64 len = packet->payload_len;

    struct session *session = bpf_map_lookup_elem(&sessions, &id);
    if (!session)
        return absent(packet, counters);
    __u64 generation = READ_ONCE(session->generation);
    if (!generation)
        return go_up(counters, PASSED_SLOW);

    const struct direction *direction = role ? &session->directions[1] : &session->directions[0];
    const struct peer *from = role ? &session->peers[1] : &session->peers[0];
    const struct peer *to = role ? &session->peers[0] : &session->peers[1];
    __u64 covered = (len - sizeof(*forward)) | (__u64)role << 16 | (__u64)FORWARD << 24 | (__u64)VERSION << 32;
    if (siphash_words(direction->key, sequence, covered) != join(forward->mac))
        return junk(packet, counters, DROPPED_MAC);
    struct address source = source_of(packet);
    if (packet->udp->source != from->port || !same(&source, &from->address))
        return go_up(counters, PASSED_ADDRESS);

    __u32 way_in = from->way;
    __u32 way_out = to->way;
    struct way *in = bpf_map_lookup_elem(&ways, &way_in);
    struct way *out = bpf_map_lookup_elem(&ways, &way_out);
    struct address destination = destination_of(packet);
    if (!in || !out || !same(&destination, &in->source) || in->vlan != packet->vlan || !takes(out, packet))
        return go_up(counters, PASSED_WAY);
    if (!is_plain(packet))
        return go_up(counters, PASSED_UNUSUAL);

    __u32 index = session->slot * 2 + role;
    struct state *state = bpf_map_lookup_elem(&states, &index);
    /* The map may use the memory of a session that was removed or replaced for another one at once. If it is still
     * this one now, then everything above was of this one. */
    barrier();
    if (!state || READ_ONCE(session->generation) != generation)
        return go_up(counters, PASSED_SLOW);
    switch (pass(state, direction, generation, bpf_ktime_get_ns(), sequence, len)) {
    case PASS_YES:
        break;
    case PASS_EXPIRED:
        return drop(counters, DROPPED_EXPIRED);
    case PASS_REPLAY:
        return drop(counters, DROPPED_REPLAY);
    case PASS_OLD:
        return drop(counters, DROPPED_OLD);
    case PASS_FAR_AHEAD:
        return drop(counters, DROPPED_FAR_AHEAD);
    case PASS_HARD_LIMIT:
        return drop(counters, DROPPED_HARD_LIMIT);
    case PASS_SOFT_LIMIT:
        return drop(counters, DROPPED_SOFT_LIMIT);
    default:
        return go_up(counters, PASSED_SLOW);
    }

    counters->forwarded++;
    counters->forwarded_bytes += len;
    __u32 device = out->device;
    rewrite(ctx, packet, out, to);
    if (device == ctx->ingress_ifindex)
        return XDP_TX;
    /* A device that is gone by now costs this datagram and no more: its way is taken out. */
    return bpf_redirect_map(&devices, way_out, 0);
}

SEC("xdp")
int relay(struct xdp_md *ctx)
{
    struct udp_packet packet;
    __u32 zero = 0;

    if (parse_udp(ctx, &packet) != PARSE_UDP || packet.udp->dest != bpf_htons(port))
        return XDP_PASS;
    struct counters *counters = bpf_map_lookup_elem(&counts, &zero);
    if (!counters)
        return XDP_PASS;

    /* In the order of RELAY-WIRE-3. */
    struct forward *forward = (struct forward *)packet.payload;
    __u8 *end = (__u8 *)(long)ctx->data_end;
    if (packet.payload_len < HEADER_LEN)
        return junk(&packet, counters, DROPPED_SIZE);
    if (packet.payload_len > DATAGRAM_MAX || packet.payload + HEADER_LEN > end)
        return go_up(counters, PASSED_UNUSUAL);
    if (forward->magic != MAGIC)
        return junk(&packet, counters, DROPPED_MAGIC);
    if (forward->version != VERSION)
        return junk(&packet, counters, DROPPED_VERSION);
    switch (forward->kind) {
    case FORWARD:
        break;
    case LEASE_PRESENT:
    case LEASE_RENEW:
    case PROBE_REQ:
        return go_up(counters, PASSED_CONTROL);
    default:
        return junk(&packet, counters, DROPPED_KIND);
    }
    if ((forward->flags & ~FLAG_ROLE) || packet.payload_len <= sizeof(*forward) ||
        packet.payload_len > sizeof(*forward) + PAYLOAD_MAX)
        return junk(&packet, counters, DROPPED_HEADER);
    if (packet.payload + sizeof(*forward) > end)
        return go_up(counters, PASSED_UNUSUAL);
    return on_forward(ctx, &packet, forward, counters);
}

/* Only helpers that any licence may use are called; the kernel wants to be told all the same. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
