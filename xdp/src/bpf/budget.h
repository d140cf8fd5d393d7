/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * So many per second, with a tenth of that at once. One processor has one of each, so there is no lock. Owns nothing.
 * Invariant: no second lets more pass than the rate and the tenth.
 */
#ifndef WAVRY_BUDGET_H
#define WAVRY_BUDGET_H

#include "direction.h"

/* Takes one, if there is one. */
static __always_inline bool take(struct budget *budget, __u64 now, __u32 per_second)
{
    __u64 span = now - budget->at_ns;

    if (span > NANO)
        span = NANO;
    budget->at_ns = now;
    __u64 level = filled(budget->level, span, per_second, per_second / 10 + 1);
    bool enough = level >= NANO;
    budget->level = enough ? level - NANO : level;
    return enough;
}

#endif
