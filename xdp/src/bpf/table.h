/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Finds a session by its id. Two memory accesses that depend on each other, and no more: a bucket says the number, and session
 * and states are at that number. A hash map of the kernel's takes four, one after the other (bucket, element, value, and only
 * then the state).
 *
 * Owns nothing: userspace alone writes, `src/relay/table.rs` is the same in Rust. Invariant: what is found has the id that was asked
 * for, whatever a bucket says; so nothing here has to be read with care.
 */
#ifndef WAVRY_TABLE_H
#define WAVRY_TABLE_H

#include "relay.h"

/* Drawn at each start, so that nobody who chooses ids chooses buckets. Odd. */
const volatile __u64 table_keys[3] = { 1, 1, 1 };
const volatile __u32 table_buckets = 1;

/* Values begin at a page because of the flag, and so each at a cache line. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct bucket);
} buckets SEC(".maps");

/* By number. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct session);
} sessions SEC(".maps");

/* Two for each session. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct state);
} states SEC(".maps");

/* Which bucket a part of a hash means. */
static __always_inline __u32 bucket_of(__u64 part)
{
    return (part & 0xffffffff) * table_buckets >> 32;
}

/* Every bit of it depends on every bit of a word (Stafford's variant 13 of the end of MurmurHash3): ids may be counted up. */
static __always_inline __u64 mixed(__u64 word)
{
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9ULL;
    word = (word ^ word >> 27) * 0x94d049bb133111ebULL;
    return word ^ word >> 31;
}

/* The number of the session with an id, given as two words; negative: there is none. A global function, which the verifier
 * follows once. */
__noinline int number_of(__u64 first, __u64 second)
{
    __u64 hash = mixed(first * table_keys[0] + second * table_keys[1]);
    __u64 other = hash * table_keys[2];
    const __u64 parts[CHOICES] = { hash >> 32, hash, other >> 32 };
    __u32 tag = other;

#pragma unroll
    for (int choice = 0; choice < CHOICES; choice++) {
        __u32 index = bucket_of(parts[choice]);
        struct bucket *bucket = bpf_map_lookup_elem(&buckets, &index);
        if (!bucket)
            return -1;
#pragma unroll
        for (int place = 0; place < PLACES; place++) {
            if (bucket->tags[place] != tag)
                continue;
            /* 0: none. */
            __u32 number = READ_ONCE(bucket->numbers[place]) - 1;
            const struct session *session = bpf_map_lookup_elem(&sessions, &number);
            if (session && session->id[0] == first && session->id[1] == second &&
                (READ_ONCE(session->word) & WORD_ENTERED))
                return number;
        }
    }
    return -1;
}

/* The session with an id, and its number. */
static __always_inline struct session *find_session(const struct session_id *id, __u32 *number)
{
    int found = number_of((__u64)id->words[1] << 32 | id->words[0], (__u64)id->words[3] << 32 | id->words[2]);

    *number = found;
    return found < 0 ? NULL : bpf_map_lookup_elem(&sessions, number);
}

#endif
