/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A source and a sink of datagrams, for benchmarks and tests of relays. The source is run by BPF_PROG_TEST_RUN on live
 * frames: each run makes one frame and redirects it to a device, or finds nothing to do and drops it. The sink is
 * attached where frames come out; it counts them and how long they took. Both share their maps, so that the source
 * can keep a fixed number of frames under way. The hole belongs where the sender's own frames come in: answers to
 * spoofed sources end there, as they would far away from the sender.
 *
 * Never part of a product. Invariants: source and sink run on one core, so plain additions count right; a run makes at
 * most one frame.
 */
#include "checksum.h"
#include "load.h"
#include "siphash.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct load_settings);
} settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, LOAD_FLOWS_MAX);
    __type(key, __u32);
    __type(value, struct load_flow);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct load_results);
} results SEC(".maps");

#define UDP_AT (sizeof(struct ethhdr) + sizeof(struct iphdr))
#define PAYLOAD_AT (UDP_AT + sizeof(struct udphdr))
/* Where a FORWARD of the relay protocol has its sequence and its MAC. */
#define SEQUENCE_AT 20
#define MAC_AT 28
/* Second word of the MAC's input without the length: version 1, type FORWARD, role host (RELAY-1, 6). */
#define MAC_HEADER (1ULL << 32 | 0x10ULL << 24 | 1ULL << 16)

/* A frame of the streams that are measured. */
static __always_inline int make_frame(struct xdp_md *ctx, struct load_settings *set, struct load_results *res, __u64 now)
{
    if (bpf_xdp_adjust_tail(ctx, -LOAD_SLACK))
        return XDP_ABORTED;
    __u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
    __u32 number = set->next_flow;

    set->next_flow = number + set->flow_step;
    if (set->next_flow >= set->flows)
        set->next_flow -= set->flows;
    struct load_flow *flow = bpf_map_lookup_elem(&flows, &number);
    if (!flow || data + LOAD_HEAD_LEN > end)
        return XDP_DROP;
    __builtin_memcpy(data, flow->head, LOAD_HEAD_LEN);
    __u64 sum = flow->sum;
    if (set->protocol == LOAD_FORWARD) {
        __u64 sequence = flow->sequence++;
        __u64 mac = bpf_cpu_to_be64(siphash_words(flow->key, sequence, MAC_HEADER | set->mac_len));
        sequence = bpf_cpu_to_be64(sequence);
        *(__u64 *)(data + PAYLOAD_AT + SEQUENCE_AT) = sequence;
        *(__u64 *)(data + PAYLOAD_AT + MAC_AT) = mac;
        sum += (sequence & 0xffffffff) + (sequence >> 32) + (mac & 0xffffffff) + (mac >> 32);
    }
    __u8 *stamp = data + PAYLOAD_AT + (set->stamp_sent_at & 63);
    if (stamp + sizeof(__u64) > end)
        return XDP_DROP;
    *(__u64 *)stamp = now;
    sum += (now & 0xffffffff) + (now >> 32);
    __u16 check = ~fold(sum);
    ((struct udphdr *)(data + UDP_AT))->check = check ? check : 0xffff;
    res->sent++;
    return bpf_redirect(set->device, 0);
}

/* A frame of the flood: from any source, without a UDP checksum, with random bytes where the flood has some. */
static __always_inline int make_flood(struct xdp_md *ctx, struct load_settings *set, struct load_results *res)
{
    if (bpf_xdp_adjust_tail(ctx, -LOAD_SLACK))
        return XDP_ABORTED;
    __u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
    __u32 number = LOAD_FLOWS_MAX - 1;
    struct load_flow *flow = bpf_map_lookup_elem(&flows, &number);

    if (!flow || data + LOAD_HEAD_LEN > end)
        return XDP_DROP;
    __builtin_memcpy(data, flow->head, LOAD_HEAD_LEN);
    struct iphdr *ip = (struct iphdr *)(data + sizeof(struct ethhdr));
    struct udphdr *udp = (struct udphdr *)(data + UDP_AT);
    __u32 word = bpf_get_prandom_u32();
    /* So many sources, one after another. */
    __u32 source = bpf_ntohl(ip->saddr) + set->flood_next;
    set->flood_next = set->flood_next + 1 < set->flood_sources ? set->flood_next + 1 : 0;
    ip->saddr = bpf_htonl(source);
    udp->source = bpf_htons(1024 + (word & 0x7fff));
    udp->check = 0;
    ip->check = ~fold((__u64)flow->sum + ip->saddr);
    switch (set->flood) {
    case LOAD_FLOOD_JUNK:
        *(__u32 *)(data + PAYLOAD_AT) = word;
        break;
    case LOAD_FLOOD_SESSIONS: /* session ids that nobody has */
        *(__u32 *)(data + PAYLOAD_AT + 4) = word;
        break;
    }
    res->flood_sent++;
    return bpf_redirect(set->device, 0);
}

SEC("xdp")
int source(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct load_settings *set = bpf_map_lookup_elem(&settings, &zero);
    struct load_results *res = bpf_map_lookup_elem(&results, &zero);

    if (!set || !res)
        return XDP_ABORTED;
    __u64 now = bpf_ktime_get_ns();
    if (!set->left && set->burst) {
        if (set->window) {
            /* As many as the window holds. What is lost must not close it for good. */
            __u64 got = *(volatile __u64 *)&res->received;
            if (got != set->got) {
                set->got = got;
                set->progress_ns = now;
            } else if (now - set->progress_ns > LOAD_STALL_NS) {
                set->given_up = res->sent - got;
                set->progress_ns = now;
            }
            if (res->sent + set->burst <= got + set->given_up + set->window)
                set->left = set->burst;
        } else if (now >= set->due_ns) {
            /* Behind by more than the catching up of a moment: begins anew. */
            set->due_ns = now - set->due_ns > LOAD_LATE_NS ? now + set->gap_ns : set->due_ns + set->gap_ns;
            set->left = set->burst;
        }
    }
    if (set->left) {
        set->left--;
        return make_frame(ctx, set, res, now);
    }
    if (set->flood && now >= set->flood_due_ns) {
        set->flood_due_ns =
            now - set->flood_due_ns > LOAD_LATE_NS ? now + set->flood_gap_ns : set->flood_due_ns + set->flood_gap_ns;
        return make_flood(ctx, set, res);
    }
    return XDP_DROP;
}

SEC("xdp")
int hole(struct xdp_md *ctx)
{
    __u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
    __u32 number = LOAD_FLOWS_MAX - 1;
    struct load_flow *flow = bpf_map_lookup_elem(&flows, &number);

    if (!flow || data + UDP_AT > end || ((struct ethhdr *)data)->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    struct iphdr *ip = (struct iphdr *)(data + sizeof(struct ethhdr));
    struct iphdr *spoofed = (struct iphdr *)(flow->head + sizeof(struct ethhdr));
    /* The flood's sources are counted up from one that has zeroes there. */
    return *(__u8 *)&ip->daddr == *(__u8 *)&spoofed->saddr ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
    __u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
    __u32 zero = 0;
    struct load_settings *set = bpf_map_lookup_elem(&settings, &zero);
    struct load_results *res = bpf_map_lookup_elem(&results, &zero);

    if (!set || !res)
        return XDP_PASS;
    __u8 *stamp = data + PAYLOAD_AT + (set->stamp_got_at & 63);
    if (stamp + 2 * sizeof(__u64) > end || *(__u64 *)(stamp + sizeof(__u64)) != LOAD_TAG)
        return XDP_PASS;
    __u64 took = bpf_ktime_get_ns() - *(__u64 *)stamp;
    __u64 place = took / LOAD_BUCKET_NS;
    if (place >= LOAD_BUCKETS)
        place = LOAD_BUCKETS - 1;
    res->histogram[place]++;
    res->received++;
    return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
