/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the relay's program and its loader share: the layout of the maps. `src/relay/layout.rs` is the same in Rust.
 *
 * Who writes what decides what may be read without care. `struct session` is written by userspace only, in place: its word
 * changes before anything else of it does and once more when all of it is there, so what was read between two equal words is
 * of one session. `struct way` is written by userspace only, whole. `struct state` is written by the program only, while the
 * generation of the session is that of the state; before and after that by userspace only.
 */
#ifndef WAVRY_RELAY_H
#define WAVRY_RELAY_H

#include <linux/types.h>

#include "parse.h"

#define READ_ONCE(place) (*(volatile typeof(place) *)&(place))
#define barrier() asm volatile("" ::: "memory")

/* Ways there can be. */
#define WAYS_MAX 4096
/* Addresses of the machine. */
#define LOCALS_MAX 1024

struct session_id {
    __u32 words[4];
};

/* One of the two peers. */
struct peer {
    struct address address;
    __be16 port;
    __u16 way; /* to it */
};

/* What one of the two peers sends. How deep its buckets are follows from the rates. */
struct direction {
    __u64 key[2];
    __u64 expires_ns;
    __u32 hard_rate; /* bytes per second */
    __u32 soft_rate;
};

/* A session, two cache lines. Its states are at twice its number, and behind. */
struct session {
    __u64 id[2];
    /* The generation of the states (0: the session's datagrams go up), WORD_ENTERED, and a count of changes. */
    __u32 word;
    struct peer peers[2];
    __u32 reserved;
    struct direction directions[2];
};

#define WORD_GENERATION_BITS 0x7fffU
#define WORD_ENTERED 0x8000U

/* Choices of buckets that an id has, and places of a bucket. */
#define CHOICES 3
#define PLACES 8

/* Where sessions are; one cache line. */
struct bucket {
    __u32 tags[PLACES];
    __u32 numbers[PLACES]; /* and one */
};

/* What a direction remembers; one cache line. */
struct state {
    /* HEAD_LOCKED, the generation, and the highest sequence that passed plus one (0 before any), in one word so that
     * one atomic instruction sees to all of them. */
    __u64 head;
    __u64 seen[4];
    __u64 refilled_ns;
    __u64 hard; /* nano-bytes */
    __u64 soft;
};

#define HEAD_LOCKED (1ULL << 63)
#define HEAD_GENERATION_AT 48
#define HEAD_GENERATION_BITS 0x7fffULL
#define HEAD_NEXT_BITS ((1ULL << HEAD_GENERATION_AT) - 1)

/* How frames to a neighbour leave. */
struct way {
    __u32 device; /* 0: not through here */
    __u16 vlan; /* VLAN_NONE, or the tag that frames have */
    __u16 mtu; /* largest IP packet */
    __u8 to_mac[ETH_ALEN];
    __u8 from_mac[ETH_ALEN];
    struct address source; /* of the relay, as peers on this way know it */
};

struct settings {
    /* Not every session of the relay is in the map: what is not found goes up. */
    __u32 is_incomplete;
    /* Generic mode: a frame may be several datagrams of a sender that the kernel merged, or that were never
     * apart, and checksums may be left to the device. What looks wrong goes up. */
    __u32 is_generic;
    /* Devices are virtual cables, which deliver what is sent back (XDP_TX) only if the other end has a program as well;
     * what is redirected to them they deliver with GRO, too. */
    __u32 is_cable;
};

/* Why a datagram was dropped, in the order of `Dropped` of the loader. */
enum dropped {
    DROPPED_SIZE,
    DROPPED_MAGIC,
    DROPPED_VERSION,
    DROPPED_HEADER,
    DROPPED_KIND,
    DROPPED_UNKNOWN_SESSION,
    DROPPED_CHALLENGE,
    DROPPED_ANSWER_LIMIT,
    DROPPED_MAC,
    DROPPED_EXPIRED,
    DROPPED_REPLAY,
    DROPPED_OLD,
    DROPPED_FAR_AHEAD,
    DROPPED_HARD_LIMIT,
    DROPPED_SOFT_LIMIT,
    DROPPED_REASONS,
};

/* Why a datagram for the relay went up, in the order of `Passed` of the loader. */
enum passed {
    PASSED_CONTROL, /* a lease, a probe */
    PASSED_ABSENT,  /* no such session, within the budget of those that userspace may answer */
    PASSED_SLOW,    /* the session is carried by userspace for now */
    PASSED_ADDRESS, /* a right MAC from another address: userspace asks for a proof */
    PASSED_WAY,     /* to or from somewhere that this program does not serve, or too long for the way */
    PASSED_UNUSUAL, /* not how datagrams come */
    PASSED_REASONS,
};

/* Whose datagrams, other than those that a session forwards, are answered or go up; each has a budget of its own, so that
 * none uses up another's. */
enum claim {
    CLAIM_STRANGER,  /* anybody's; goes up */
    CLAIM_ANSWERED,  /* anybody's; answered here */
    CLAIM_PROVED,    /* of an address that answered a challenge for the session */
    CLAIM_KNOWN,     /* from the address of a bound peer, or for a session that waits for its peers */
    CLAIMS,
};

struct budget {
    __u64 at_ns;
    __u64 level; /* billionths */
};

/* Of one processor. */
struct counters {
    __u64 forwarded;
    __u64 forwarded_bytes;
    __u64 answered;
    __u64 passed[PASSED_REASONS];
    __u64 dropped[DROPPED_REASONS];
    struct budget budgets[CLAIMS];
};

#endif
