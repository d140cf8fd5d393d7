/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What load.bpf.c and its loader (src/load.rs) share.
 */
#ifndef WAVRY_LOAD_H
#define WAVRY_LOAD_H

#include <linux/types.h>

/* Bytes at the beginning of a frame that are written anew each time: whoever had the page before may have changed
 * them. Headers, header of the relay protocol, time stamp and tag. */
#define LOAD_HEAD_LEN 96
/* Bytes that every frame is made shorter by. The kernel uses frames again without looking whether somebody made them shorter
 * in between; whose bounds the source itself changed, it sets up anew. */
#define LOAD_SLACK 4
/* Flows there can be. The last one is the flood's. */
#define LOAD_FLOWS_MAX 131072
/* Behind the time stamp of every measured datagram. */
#define LOAD_TAG 0x4c4f41442d544147ULL
#define LOAD_BUCKETS 32768
#define LOAD_BUCKET_NS 100
/* Nothing came for so long: what is under way is lost. */
#define LOAD_STALL_NS 4000000
/* A paced source that is late by more does not catch up. */
#define LOAD_LATE_NS 500000

enum load_protocol {
    LOAD_PLAIN = 0,   /* sends the head as it is */
    LOAD_FORWARD = 1, /* sequence and MAC of the relay protocol */
};

enum load_flood {
    LOAD_FLOOD_NONE = 0,
    LOAD_FLOOD_JUNK = 1,     /* first four bytes random */
    LOAD_FLOOD_SESSIONS = 2, /* session ids random */
    LOAD_FLOOD_FIXED = 3,    /* the head as it is */
};

struct load_settings {
    /* Set by the loader. */
    __u64 gap_ns; /* from burst to burst */
    __u64 flood_gap_ns;
    __u32 window; /* frames under way at most; 0: paced */
    __u32 burst;  /* frames that leave at once; 0: none */
    __u32 flows;
    __u32 flow_step; /* from one frame's flow to the next one's; below `flows` or 0 */
    __u32 protocol;
    __u32 mac_len; /* bytes of payload that the MAC is told */
    __u32 stamp_sent_at; /* in the UDP payload, as sent and as it arrives */
    __u32 stamp_got_at;
    __u32 device;
    __u32 flood;
    __u32 flood_sources;
    /* The source's own. */
    __u32 next_flow;
    __u32 left; /* of the burst */
    __u32 flood_next;
    __u64 due_ns;
    __u64 flood_due_ns;
    __u64 got;
    __u64 progress_ns;
    __u64 given_up;
};

struct load_flow {
    __u8 head[LOAD_HEAD_LEN];
    __u64 key[2];
    __u64 sequence;
    /* One's complement sum for the UDP checksum with sequence, MAC and time stamp zero; of the flood: for the IP
     * checksum without the source address. */
    __u32 sum;
    __u32 reserved;
};

struct load_results {
    __u64 sent;
    __u64 flood_sent;
    __u64 received;
    __u64 histogram[LOAD_BUCKETS];
};

#endif
