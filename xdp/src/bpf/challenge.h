/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Challenges (RELAY-1, 4): the relay's time and a MAC over it, the peer's address, session and role. The same bytes as
 * `Relay::challenge_bytes`; the two are compared through the kernel. Owns nothing; a challenge is computed, never kept.
 */
#ifndef WAVRY_CHALLENGE_H
#define WAVRY_CHALLENGE_H

#include "relay.h"
#include "siphash.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are put together as a little-endian machine has them"
#endif

/* As in the relay's `core.rs`. */
#define CHALLENGE_LIFE_MS 30000ULL
/* Bytes that the MAC covers: address, port, session, role, time. */
#define CHALLENGED_LEN 43ULL

/* Who is challenged for what. */
struct challenged {
    struct address source;
    struct session_id session;
    __u32 role;
    __be16 port;
};

/* As it is on the wire, where it is not aligned to more. */
struct challenge {
    __be32 time[2];
    __be32 mac[4];
};

static __always_inline __u64 pair(__u32 first, __u32 second)
{
    return (__u64)second << 32 | first;
}

static __always_inline void put_be64(__be32 to[2], __u64 value)
{
    to[0] = bpf_htonl(value >> 32);
    to[1] = bpf_htonl(value);
}

/* One half of the MAC. */
static __always_inline __u64 half_of_mac(const __u64 key[2], const struct challenged *who, __u64 time_be)
{
    __u64 session[2] = { pair(who->session.words[0], who->session.words[1]),
                         pair(who->session.words[2], who->session.words[3]) };
    struct siphash v = siphash_begin(key);

    siphash_absorb(&v, pair(who->source.words[0], who->source.words[1]));
    siphash_absorb(&v, pair(who->source.words[2], who->source.words[3]));
    siphash_absorb(&v, who->port | session[0] << 16);
    siphash_absorb(&v, session[0] >> 48 | session[1] << 16);
    siphash_absorb(&v, session[1] >> 48 | (__u64)who->role << 16 | time_be << 24);
    siphash_absorb(&v, time_be >> 40 | CHALLENGED_LEN << 56);
    return siphash_end(&v);
}

/* What somebody is, or was, challenged with at a time of the relay's clock. Not inlined: it is long, and wanted in several
 * places. */
static __noinline int challenge_at(const struct challenged *who, __u64 time_ms, struct challenge *out)
{
    const __u64 first[2] = { challenge_keys[0], challenge_keys[1] };
    const __u64 second[2] = { challenge_keys[2], challenge_keys[3] };
    __u64 time_be = bpf_cpu_to_be64(time_ms);

    put_be64(out->time, time_ms);
    put_be64(out->mac, half_of_mac(first, who, time_be));
    put_be64(out->mac + 2, half_of_mac(second, who, time_be));
    return 0;
}

/* Whether a challenge was given to them, and lately. */
static __always_inline bool was_given(const struct challenged *who, const struct challenge *found, __u64 now_ms)
{
    __u64 time_ms = (__u64)bpf_ntohl(found->time[0]) << 32 | bpf_ntohl(found->time[1]);
    struct challenge ours = {};

    if (time_ms > now_ms || now_ms - time_ms > CHALLENGE_LIFE_MS)
        return false;
    challenge_at(who, time_ms, &ours);
    return !((ours.mac[0] ^ found->mac[0]) | (ours.mac[1] ^ found->mac[1]) | (ours.mac[2] ^ found->mac[2]) |
             (ours.mac[3] ^ found->mac[3]));
}

#endif
