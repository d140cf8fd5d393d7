/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Whether an authentic datagram passes: expiry, replay window, token buckets, in this order (RELAY-1, 6 and 9). The same
 * decision with the same arithmetic as `Direction::pass` of the relay; the two are compared through the kernel.
 *
 * Invariant: between lock and unlock a state has one writer, whichever processors the datagrams of a direction come in
 * on. A network card sends a flow to one queue and so to one processor: the lock is there for when it does not, and
 * costs one atomic instruction on a cache line that is written anyway.
 */
#ifndef WAVRY_DIRECTION_H
#define WAVRY_DIRECTION_H

#include "relay.h"

/* As in the relay's `direction.rs`. */
#define JUMP_MAX (1ULL << 20)
#define WINDOW 192
#define WORDS 4
#define NANO 1000000000ULL
#define NANO_PER_MILLI 1000000ULL
#define REFILL_MAX_NS 2000000000ULL
#define BURST_MIN (144 * 1024U)
#define DEPTH_MAX (1U << 30)
/* A 200th of a rate, 5 ms, exactly: a multiplication where a division would take as long as the rest of a bucket. */
#define HARD_DEPTH_OF(rate) ((__u64)(rate) * 0x51eb851f >> 38)

/* Tries to lock a state. What holds it is another processor for a few dozen nanoseconds, or for long if that one
 * is virtual and was taken away. */
#define LOCK_TRIES 64

enum pass {
    PASS_YES,
    PASS_EXPIRED,
    PASS_REPLAY,
    PASS_OLD,
    PASS_FAR_AHEAD,
    PASS_HARD_LIMIT,
    PASS_SOFT_LIMIT,
    PASS_NOT_OURS, /* another generation, or locked for too long: nothing changed */
};

/* Takes a state of a generation for this processor; true with the sequence that is next. */
static __always_inline bool lock(struct state *state, __u64 generation, __u64 *next)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        __u64 head = READ_ONCE(state->head);
        if ((head >> HEAD_GENERATION_AT & HEAD_GENERATION_BITS) != generation)
            return false;
        if (head & HEAD_LOCKED)
            continue;
        if (__sync_val_compare_and_swap(&state->head, head, head | HEAD_LOCKED) == head) {
            *next = head & HEAD_NEXT_BITS;
            return true;
        }
    }
    return false;
}

static __always_inline void unlock(struct state *state, __u64 generation, __u64 next)
{
    __u64 head = generation << HEAD_GENERATION_AT | next;
#ifdef TOTAL_STORE_ORDER
    /* Stores become visible in their order; only the compiler has to be kept from changing it. */
    barrier();
    *(volatile __u64 *)&state->head = head;
#else
    __sync_lock_test_and_set(&state->head, head);
#endif
}

static __always_inline enum pass check(const struct state *state, __u64 next, __u64 sequence)
{
    if (sequence >= next)
        return sequence - next < JUMP_MAX ? PASS_YES : PASS_FAR_AHEAD;
    if (next - 1 - sequence >= WINDOW)
        return PASS_OLD;
    __u64 seen = state->seen[sequence / 64 % WORDS];
    return seen >> (sequence % 64) & 1 ? PASS_REPLAY : PASS_YES;
}

static __always_inline __u64 filled(__u64 level, __u64 span, __u32 rate, __u32 depth)
{
    __u64 full = depth * NANO;
    level += span * rate;
    return level < full ? level : full;
}

/* The depth of a bucket that holds so much unless that is too little or too much. */
static __always_inline __u32 depth_within(__u32 depth)
{
    return depth < BURST_MIN ? BURST_MIN : depth > DEPTH_MAX ? DEPTH_MAX : depth;
}

static __always_inline enum pass charge(struct state *state, const struct direction *direction, __u64 now, __u64 len)
{
    __u64 span = now > state->refilled_ns ? now - state->refilled_ns : 0;
    __u64 cost = len * NANO;

    if (span > REFILL_MAX_NS)
        span = REFILL_MAX_NS;
    if (now > state->refilled_ns)
        state->refilled_ns = now;
    __u64 hard = filled(state->hard, span, direction->hard_rate,
                        depth_within(HARD_DEPTH_OF(direction->hard_rate)));
    __u64 soft = filled(state->soft, span, direction->soft_rate, depth_within(direction->soft_rate));
    enum pass pass = hard < cost ? PASS_HARD_LIMIT : soft < cost ? PASS_SOFT_LIMIT : PASS_YES;
    if (pass == PASS_YES) {
        hard -= cost;
        soft -= cost;
    }
    state->hard = hard;
    state->soft = soft;
    return pass;
}

/* Notes that a sequence passed; the next one. */
static __always_inline __u64 mark(struct state *state, __u64 next, __u64 sequence)
{
    if (sequence >= next) {
        /* Words that come into the window hold what was seen a whole ring ago (RFC 6479). */
        __u64 from = next ? (next - 1) / 64 + 1 : 0;
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            if (from + i <= sequence / 64)
                state->seen[(from + i) % WORDS] = 0;
        next = sequence + 1;
    }
    state->seen[sequence / 64 % WORDS] |= 1ULL << (sequence % 64);
    return next;
}

/* Decides over a datagram of `len` bytes and notes that it passed, if it does. */
static __always_inline enum pass pass(struct state *state, const struct direction *direction, __u64 generation,
                                      __u64 now, __u64 sequence, __u64 len)
{
    __u64 next;

    if (now >= direction->expires_ns)
        return PASS_EXPIRED;
    /* Such a sequence needs a peer that leaps for hours; the head has no room for it. */
    if (sequence >= HEAD_NEXT_BITS)
        return sequence - HEAD_NEXT_BITS < JUMP_MAX ? PASS_NOT_OURS : PASS_FAR_AHEAD;
    if (!lock(state, generation, &next))
        return PASS_NOT_OURS;
    enum pass pass = check(state, next, sequence);
    if (pass == PASS_YES)
        pass = charge(state, direction, now, len);
    if (pass == PASS_YES)
        next = mark(state, next, sequence);
    unlock(state, generation, next);
    return pass;
}

#endif
