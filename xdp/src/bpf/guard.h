/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Looks at what is about to be queued for the relay's socket, and drops what would be dropped there, before it takes room
 * from sessions and wakes a thread. For where no program runs in the driver, and behind the one that runs in generic mode. Shares maps
 * with that program, but for budgets and counters.
 *
 * Owns nothing. Answers nothing. Invariant: a datagram of a session that is in the map is never dropped, nor is any for a session
 * that may be missing.
 */
#ifndef WAVRY_GUARD_H
#define WAVRY_GUARD_H

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counters);
} guard_counts SEC(".maps");

/* The socket gets all of it. */
#define KEEP (-1)

static __always_inline int keep(struct counters *counters, enum passed reason)
{
    counters->passed[reason]++;
    return KEEP;
}

static __always_inline int refuse(struct counters *counters, enum dropped reason)
{
    counters->dropped[reason]++;
    return 0;
}

/* Whose datagram it is; false if the kernel's buffer does not show it. The UDP header is where the buffer begins. */
static __always_inline bool who_of(struct __sk_buff *skb, const struct present *head, struct challenged *who)
{
    who->session = head->session;
    who->role = head->role;
    if (bpf_skb_load_bytes(skb, offsetof(struct udphdr, source), &who->port, sizeof(who->port)))
        return false;
    if (skb->protocol == bpf_htons(ETH_P_IP)) {
        __be32 source;
        if (bpf_skb_load_bytes_relative(skb, offsetof(struct iphdr, saddr), &source, sizeof(source),
                                        BPF_HDR_START_NET))
            return false;
        who->source = mapped_v4(source);
        return true;
    }
    return !bpf_skb_load_bytes_relative(skb, offsetof(struct ipv6hdr, saddr), &who->source, sizeof(who->source),
                                        BPF_HDR_START_NET);
}

/* A LEASE_PRESENT or LEASE_RENEW of so many bytes. */
static __always_inline int guard_present(struct __sk_buff *skb, __u32 len, struct counters *counters)
{
    struct present head = {};
    struct challenged who = {};
    struct challenge found = {};
    __u8 proof_len = 0;
    __u32 number;
    __u32 at = sizeof(struct udphdr);

    if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
        return refuse(counters, DROPPED_HEADER);
    __u32 token_len = head.token_len[0] << 8 | head.token_len[1];
    __u32 least = sizeof(head) + token_len + sizeof(struct attempt);
    if (head.role > 1 || token_len < TOKEN_MIN || token_len > TOKEN_MAX || (len != least && len != least + PROOF_LEN))
        return refuse(counters, DROPPED_HEADER);
    bool has_proof = len != least;
    at += least;
    if (!who_of(skb, &head, &who) || bpf_skb_load_bytes(skb, at - 1, &proof_len, 1) ||
        (has_proof && bpf_skb_load_bytes(skb, at, &found, sizeof(found))))
        return keep(counters, PASSED_UNUSUAL);
    if (proof_len != (has_proof ? PROOF_LEN : 0))
        return refuse(counters, DROPPED_HEADER);
    __u64 now = bpf_ktime_get_ns();
    if (has_proof && !was_given(&who, &found, now / NANO_PER_MILLI))
        return refuse(counters, DROPPED_CHALLENGE);
    enum claim shared = has_proof ? CLAIM_PROVED : CLAIM_STRANGER;
    enum claim claim = find_session(&who.session, &number) ? CLAIM_KNOWN : shared;
    return claimed(counters, claim, shared, now) ? keep(counters, PASSED_CONTROL)
                                                 : refuse(counters, DROPPED_ANSWER_LIMIT);
}

/* One datagram, of so many bytes. */
static __always_inline int guard_one(struct __sk_buff *skb, __u32 len, struct present *head, struct counters *counters)
{
    __u32 zero = 0;

    if (head->magic != MAGIC)
        return refuse(counters, DROPPED_MAGIC);
    if (head->version != VERSION)
        return refuse(counters, DROPPED_VERSION);
    bool is_forward = head->kind == FORWARD;
    bool is_probe = head->kind == PROBE_REQ;
    if (!is_forward && !is_probe && head->kind != LEASE_PRESENT && head->kind != LEASE_RENEW)
        return refuse(counters, DROPPED_KIND);
    if ((head->flags & ~(is_forward ? FLAG_ROLE : 0)) || (is_probe && len != PROBE_LEN) ||
        (is_forward && (len <= sizeof(struct forward) || len > sizeof(struct forward) + PAYLOAD_MAX)))
        return refuse(counters, DROPPED_HEADER);
    if (!is_forward && !is_probe)
        return guard_present(skb, len, counters);
    if (is_forward) {
        struct settings *set = bpf_map_lookup_elem(&settings, &zero);
        if (!set || set->is_incomplete)
            return keep(counters, PASSED_ABSENT);
        if (len < CHALLENGE_DATAGRAM_LEN)
            return refuse(counters, DROPPED_UNKNOWN_SESSION);
    }
    if (claimed(counters, CLAIM_STRANGER, CLAIM_STRANGER, bpf_ktime_get_ns()))
        return keep(counters, is_probe ? PASSED_CONTROL : PASSED_ABSENT);
    return refuse(counters, is_probe ? DROPPED_ANSWER_LIMIT : DROPPED_UNKNOWN_SESSION);
}

SEC("socket")
int guard(struct __sk_buff *skb)
{
    struct present head = {};
    __u32 zero = 0;
    __u32 number;
    __u32 len = skb->len - sizeof(struct udphdr);
    struct counters *counters = bpf_map_lookup_elem(&guard_counts, &zero);

    if (!counters || skb->len < sizeof(struct udphdr))
        return KEEP;
    if (len < HEADER_LEN)
        return refuse(counters, DROPPED_SIZE);
    if (bpf_skb_load_bytes(skb, sizeof(struct udphdr), &head, HEADER_LEN))
        return KEEP;
    struct session_id id = head.session;
    /* What carries a stream comes first: one look for a whole train of datagrams. */
    if (head.magic == MAGIC && head.version == VERSION && head.kind == FORWARD && !(head.flags & ~FLAG_ROLE) &&
        find_session(&id, &number))
        return KEEP;
    /* The kernel merged several: only the first can be seen here. */
    if (skb->gso_size)
        return claimed(counters, CLAIM_STRANGER, CLAIM_STRANGER, bpf_ktime_get_ns())
                   ? keep(counters, PASSED_UNUSUAL)
                   : refuse(counters, DROPPED_ANSWER_LIMIT);
    return guard_one(skb, len, &head, counters);
}

#endif
