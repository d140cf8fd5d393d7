/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * SipHash-2-4 of little-endian words (Aumasson and Bernstein, 2012), the last of which holds the length. Owns nothing.
 * The same function as in the crate rift-relay; the two are compared through the kernel.
 */
#ifndef WAVRY_SIPHASH_H
#define WAVRY_SIPHASH_H

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

struct siphash {
    __u64 a, b, c, d;
};

static __always_inline __u64 rotate_left(__u64 word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static __always_inline void siphash_round(struct siphash *v)
{
    v->a += v->b;
    v->c += v->d;
    v->b = rotate_left(v->b, 13) ^ v->a;
    v->d = rotate_left(v->d, 16) ^ v->c;
    v->a = rotate_left(v->a, 32) + v->d;
    v->c += v->b;
    v->b = rotate_left(v->b, 17) ^ v->c;
    v->d = rotate_left(v->d, 21) ^ v->a;
    v->c = rotate_left(v->c, 32);
}

static __always_inline void siphash_absorb(struct siphash *v, __u64 word)
{
    v->d ^= word;
    siphash_round(v);
    siphash_round(v);
    v->a ^= word;
}

static __always_inline struct siphash siphash_begin(const __u64 key[2])
{
    struct siphash v = {
        key[0] ^ 0x736f6d6570736575ULL,
        key[1] ^ 0x646f72616e646f6dULL,
        key[0] ^ 0x6c7967656e657261ULL,
        key[1] ^ 0x7465646279746573ULL,
    };
    return v;
}

static __always_inline __u64 siphash_end(struct siphash *v)
{
    v->c ^= 0xff;
#pragma unroll
    for (int i = 0; i < 4; i++)
        siphash_round(v);
    return v->a ^ v->b ^ v->c ^ v->d;
}

static __always_inline __u64 siphash_words(const __u64 key[2], __u64 first, __u64 second)
{
    struct siphash v = siphash_begin(key);

    siphash_absorb(&v, first);
    siphash_absorb(&v, second);
    /* The last word holds the length. */
    siphash_absorb(&v, 16ULL << 56);
    return siphash_end(&v);
}

#endif
