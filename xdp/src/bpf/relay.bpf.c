/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Forwards the datagrams of a relay's sessions (RELAY-1, 6): finds the session, authenticates, decides, changes the
 * headers and sends on, without the kernel's stack. In native mode it also gives challenges and answers probes, neither of
 * which takes any state: what anybody can send, from any address and in any number, ends here (RELAY-1, 10).
 *
 * Owns the states of directions while a session has a generation. What else is not a plain FORWARD of such a session goes
 * up to userspace, unchanged; dropped is only what userspace would drop as well: what no session can have sent, what
 * is beyond a budget, and what a session's own checks refuse.
 *
 * Invariant: a datagram that goes up has changed nothing.
 *
 * Loading it needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN: without it the verifier allows no number that comes
 * from the packet as an index, and has every access masked against speculation.
 */
#include "answer.h"
#include "budget.h"
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
#define LEASE_CHALLENGE 0x05
#define FORWARD 0x10
#define PROBE_REQ 0x20
#define PROBE_RSP 0x21
#define FLAG_ROLE 0x01
#define FLAG_UNKNOWN 0x02
#define HEADER_LEN 20
#define PAYLOAD_MAX 1400
#define DATAGRAM_MAX 1500
#define TOKEN_MIN 64
#define TOKEN_MAX 1024
#define PROOF_LEN 120
#define PROBE_LEN 36
#define CHALLENGE_DATAGRAM_LEN 52

/* Hops that a datagram may take. What leaves is a new datagram, as it is when userspace sends it. */
#define HOPS 64
/* IPv4: never to be fragmented, so the identification means nothing (RFC 6864). */
#define DONT_FRAGMENT 0x4000

/* Set before loading. */
const volatile __u16 port = 0;
/* Two keys. */
const volatile __u64 challenge_keys[4] = {};
/* The budgets of `enum claim`, per second and processor. */
const volatile __u32 per_second[CLAIMS] = {};

/* Until then (CLOCK_MONOTONIC) the sessions of a relay that was restarted come back, all at once. */
const volatile __u64 settled_ns = 0;

#include "challenge.h"
#include "table.h"

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

/* Sends a frame out of the device that it came in by. */
static __always_inline int send_back(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);

    return set && set->is_cable ? bpf_redirect(ctx->ingress_ifindex, 0) : XDP_TX;
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

/* How many may come at once. The peers of a relay that was restarted prove themselves all together: as many as wait for
 * verification in userspace. Strangers that go up stand in one queue with what sessions send, and what their budget had saved up would
 * all stand before it whenever a flood begins: half a millisecond's is all that they may save. Just after the start whoever comes may be a
 * session that comes back, and there are no others that would wait. */
static __always_inline __u32 depth_of(enum claim claim, __u64 now)
{
    __u32 rate = per_second[claim];

    if (claim == CLAIM_PROVED)
        return rate / 2 + 1;
    return rate / (claim == CLAIM_STRANGER && now >= settled_ns ? 2000 : 10) + 1;
}

static __always_inline bool claimed_of(struct counters *counters, enum claim claim, __u64 now)
{
    return take(&counters->budgets[claim], now, per_second[claim], depth_of(claim, now));
}

/* Takes one of a budget, or of the one that is shared with others. */
static __always_inline bool claimed(struct counters *counters, enum claim claim, enum claim shared, __u64 now)
{
    return claimed_of(counters, claim, now) || (claim != shared && claimed_of(counters, shared, now));
}

/* Whether the device is yet to put the sum over the datagram where the checksum is, which now has the one over addresses and
 * length, not complemented. That is so in generic mode only, if the sender is on this machine. One in 65536 whole checksums looks like
 * it, and is right already. */
static __always_inline bool leaves_sum(struct xdp_md *ctx, const struct udp_packet *packet)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);
    __u64 sum = pseudo_sum(packet);

    return set && set->is_generic && packet->udp->check == fold(sum) && add_datagram(ctx, packet, &sum) &&
           fold(sum) != 0xffff;
}

/* The header of what is answered, in the order of the wire. */
static __always_inline void put_header(__u32 *words, __u8 kind, __u8 flags, const struct session_id *session)
{
    words[0] = bpf_htonl(MAGIC << 24 | VERSION << 16 | kind << 8 | flags);
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[1 + i] = session->words[i];
}

/* Answers with a challenge, if the budget has one left. */
static __always_inline int challenge(struct xdp_md *ctx, struct udp_packet *packet, struct counters *counters,
                                     const struct challenged *who, __u8 flags, const __u32 nonce[2], __u64 now,
                                     enum claim claim)
{
    __u32 words[CHALLENGE_DATAGRAM_LEN / 4];
    struct challenge given = {};

    if (!claimed(counters, claim, CLAIM_ANSWERED, now))
        return drop(counters, DROPPED_ANSWER_LIMIT);
    put_header(words, LEASE_CHALLENGE, flags, &who->session);
    words[5] = nonce[0];
    words[6] = nonce[1];
    challenge_at(who, now / NANO_PER_MILLI, &given);
    __builtin_memcpy(&words[7], &given, sizeof(given));
    counters->answered++;
    bool is_partial = leaves_sum(ctx, packet);
    return answer(ctx, packet, words, CHALLENGE_DATAGRAM_LEN / 4, is_partial) ? send_back(ctx) : XDP_DROP;
}

/* Whether this program may answer a datagram: then it is whole, and its sender somebody else. */
static __always_inline bool may_answer(const struct udp_packet *packet)
{
    if (!is_plain(packet) || !can_be_answered(packet))
        return false;
    struct address from = source_of(packet);
    return !bpf_map_lookup_elem(&locals, &from);
}

/* A FORWARD for a session that is not in the map: its sender is told so. */
static __always_inline int absent(struct xdp_md *ctx, struct udp_packet *packet, const struct forward *forward,
                                  struct counters *counters)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);

    if (!is_local(packet))
        return XDP_PASS;
    if (!set || set->is_incomplete)
        return go_up(counters, PASSED_ABSENT);
    if (packet->payload_len < CHALLENGE_DATAGRAM_LEN)
        return drop(counters, DROPPED_UNKNOWN_SESSION);
    __u64 now = bpf_ktime_get_ns();
    /* In generic mode it may be a train of them: the kernel keeps in mind that it cuts that apart, and would not send an answer
     * instead. */
    if (set->is_generic || !may_answer(packet))
        return claimed(counters, CLAIM_STRANGER, CLAIM_STRANGER, now) ? go_up(counters, PASSED_ABSENT)
                                                                      : drop(counters, DROPPED_UNKNOWN_SESSION);
    const __u32 nonce[2] = {};
    struct challenged who = {
        .source = source_of(packet),
        .session = forward->session,
        .role = forward->flags & FLAG_ROLE,
        .port = packet->udp->source,
    };
    return challenge(ctx, packet, counters, &who, FLAG_UNKNOWN, nonce, now, CLAIM_ANSWERED);
}

/* Whether a frame is for a way: it leaves with the tag that it has now and fits. */
static __always_inline bool takes(const struct way *way, const struct udp_packet *packet)
{
    __u32 len = packet->payload_len + sizeof(struct udphdr);

    len += packet->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
    return way->device && way->vlan == packet->vlan && len <= way->mtu;
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
    __u64 sequence = join(forward->sequence);
    __u32 role = forward->flags & FLAG_ROLE;
    __u64 len = packet->payload_len;

    __u32 number;
    struct session *session = find_session(&forward->session, &number);
    if (!session)
        return absent(ctx, packet, forward, counters);
    __u32 word = READ_ONCE(session->word);
    __u64 generation = word & WORD_GENERATION_BITS;
    if (!generation)
        return go_up(counters, PASSED_SLOW);

    const struct direction *direction = role ? &session->directions[1] : &session->directions[0];
    const struct peer *from = role ? &session->peers[1] : &session->peers[0];
    const struct peer *to = role ? &session->peers[0] : &session->peers[1];
    /* Its memory is on its way while the MAC is computed: with many sessions each of these is a cache line that is not there. */
    __u32 index = number * 2 + role;
    struct state *state = bpf_map_lookup_elem(&states, &index);
    if (!state)
        return go_up(counters, PASSED_SLOW);
    READ_ONCE(state->head);
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

    /* The memory of a session that was removed or changed is used for what comes after it at once. If its word is still
     * this one now, then everything above was of this session as it was. */
    barrier();
    if (READ_ONCE(session->word) != word)
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
        return send_back(ctx);
    /* A device that is gone by now costs this datagram and no more: its way is taken out. */
    return bpf_redirect_map(&devices, way_out, 0);
}

/* A PROBE_REQ, which is sent back as it came but for its type. */
static __always_inline int on_probe(struct xdp_md *ctx, struct udp_packet *packet, struct counters *counters)
{
    __u32 words[PROBE_LEN / 4];
    __u8 *end = (__u8 *)(long)ctx->data_end;

    bool is_ours = may_answer(packet) && packet->payload + PROBE_LEN <= end;
    enum claim claim = is_ours ? CLAIM_ANSWERED : CLAIM_STRANGER;
    if (!claimed(counters, claim, claim, bpf_ktime_get_ns()))
        return drop(counters, DROPPED_ANSWER_LIMIT);
    if (!is_ours || packet->payload + PROBE_LEN > end)
        return go_up(counters, PASSED_CONTROL);
    __builtin_memcpy(words, packet->payload, sizeof(words));
    words[0] = bpf_htonl(MAGIC << 24 | VERSION << 16 | PROBE_RSP << 8);
    counters->answered++;
    bool is_partial = leaves_sum(ctx, packet);
    return answer(ctx, packet, words, PROBE_LEN / 4, is_partial) ? send_back(ctx) : XDP_DROP;
}

/* What stands before the token of a LEASE_PRESENT or LEASE_RENEW. */
struct present {
    __u8 magic;
    __u8 version;
    __u8 kind;
    __u8 flags;
    struct session_id session;
    __u8 role;
    __u8 token_len[2];
} __attribute__((packed));

/* And behind it. */
struct attempt {
    __u32 nonce[2];
    __u8 proof_len;
} __attribute__((packed));

/* A LEASE_PRESENT or LEASE_RENEW. Without a proof it asks for a challenge; with one it goes up if it answers one. */
static __always_inline int on_present(struct xdp_md *ctx, struct udp_packet *packet, const struct settings *set,
                                      struct counters *counters)
{
    const struct present *present = (const struct present *)packet->payload;
    __u8 *end = (__u8 *)(long)ctx->data_end;
    struct attempt attempt = {};
    struct challenge found = {};

    if (packet->payload + sizeof(*present) > end)
        return junk(packet, counters, DROPPED_HEADER);
    __u32 token_len = present->token_len[0] << 8 | present->token_len[1];
    __u32 least = sizeof(*present) + token_len + sizeof(attempt);
    if (present->role > 1 || token_len < TOKEN_MIN || token_len > TOKEN_MAX ||
        (packet->payload_len != least && packet->payload_len != least + PROOF_LEN))
        return junk(packet, counters, DROPPED_HEADER);
    bool has_proof = packet->payload_len != least;
    __u32 at = packet->payload_at + sizeof(*present) + token_len;
    if (bpf_xdp_load_bytes(ctx, at, &attempt, sizeof(attempt)) ||
        (has_proof && bpf_xdp_load_bytes(ctx, at + sizeof(attempt), &found, sizeof(found))))
        return go_up(counters, PASSED_UNUSUAL);
    if (attempt.proof_len != (has_proof ? PROOF_LEN : 0))
        return junk(packet, counters, DROPPED_HEADER);

    struct challenged who = {
        .source = source_of(packet),
        .session = present->session,
        .role = present->role,
        .port = packet->udp->source,
    };
    __u64 now = bpf_ktime_get_ns();
    __u32 number;
    struct session *session = find_session(&who.session, &number);
    bool is_bound = session && (READ_ONCE(session->word) & WORD_GENERATION_BITS);
    enum claim shared = has_proof ? CLAIM_PROVED : CLAIM_STRANGER;
    enum claim claim = shared;
    if (session) {
        const struct peer *peer = who.role ? &session->peers[1] : &session->peers[0];
        if (!is_bound || (who.port == peer->port && same(&who.source, &peer->address)))
            claim = CLAIM_KNOWN;
    }
    if (has_proof && !was_given(&who, &found, now / NANO_PER_MILLI))
        return drop(counters, DROPPED_CHALLENGE);
    /* Whether a peer is bound only userspace knows while it carries the session, or has sessions that are not here. */
    bool is_certain = session ? is_bound : !set->is_incomplete;
    if (has_proof || !is_certain || !may_answer(packet))
        return claimed(counters, claim, shared, now) ? go_up(counters, PASSED_CONTROL)
                                                     : drop(counters, DROPPED_ANSWER_LIMIT);
    if (claim == CLAIM_STRANGER)
        claim = CLAIM_ANSWERED;
    return challenge(ctx, packet, counters, &who, session ? 0 : FLAG_UNKNOWN, attempt.nonce, now, claim);
}

/* What is for the relay itself. */
static __always_inline int on_control(struct xdp_md *ctx, struct udp_packet *packet, __u8 kind, __u8 flags,
                                      struct counters *counters)
{
    __u32 zero = 0;
    struct settings *set = bpf_map_lookup_elem(&settings, &zero);

    if (!is_local(packet))
        return XDP_PASS;
    if (!set)
        return go_up(counters, PASSED_CONTROL);
    if (flags || (kind == PROBE_REQ && packet->payload_len != PROBE_LEN))
        return junk(packet, counters, DROPPED_HEADER);
    return kind == PROBE_REQ ? on_probe(ctx, packet, counters) : on_present(ctx, packet, set, counters);
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
        return on_control(ctx, &packet, forward->kind, forward->flags, counters);
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

#include "guard.h"

/* Only helpers that any licence may use are called; the kernel wants to be told all the same. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
