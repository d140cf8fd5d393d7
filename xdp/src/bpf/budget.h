/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * So many per second, and so many at once. One processor has one of each, so there is no lock. Owns nothing. Invariant: no
 * second lets more pass than the rate and what may come at once.
 */
#ifndef WAVRY_BUDGET_H
#define WAVRY_BUDGET_H

#include "direction.h"

/* Takes one, if there is one, of `per_second` and `depth` at once. */
static __always_inline bool take(struct budget *budget, __u64 now, __u32 per_second, __u32 depth)
{
    __u64 span = now - budget->at_ns;

    if (span > NANO)
        span = NANO;
    budget->at_ns = now;
    __u64 level = filled(budget->level, span, per_second, depth);
    bool enough = level >= NANO;
    budget->level = enough ? level - NANO : level;
    return enough;
}

#endif
