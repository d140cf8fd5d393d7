//! Opening in place beside the plain way: the same packets, the same outcome.

use proptest::prelude::*;

use super::*;
use crate::fec::{self, Group};
use crate::message::{
    self, ChunkReader, FecPacket, Incoming, MediaBody, PackedVarints, ShardLengths, VideoChunk,
};
use crate::receive::ReceiverConfig;
use crate::{DropReason, FrameId, GroupId};

/// Of every chunk but the last of a slice, in bytes.
const CHUNK_LEN: usize = 200;

/// A receiver and what stands before it.
struct Rig {
    receiver: VideoReceiver,
    chunks: ChunkReader,
    in_place: bool,
    taken_in_place: usize,
}

impl Rig {
    fn new(in_place: bool) -> Self {
        let config =
            ReceiverConfig { frame_bytes_max: 32 << 10, frames: 8, slices_max: 4, ..Default::default() };
        let mut receiver = VideoReceiver::new(&config);
        receiver.set_slices(true);
        Self { receiver, chunks: ChunkReader::new(), in_place, taken_in_place: 0 }
    }

    fn expect(&mut self, id: PacketId, body: &[u8]) -> bool {
        self.in_place && self.receiver.expect(id, body.len(), self.chunks.look())
    }

    /// A packet of this id and length that turns out not to be authentic.
    fn forge(&mut self, id: PacketId, body: &[u8]) {
        if self.expect(id, body) {
            self.receiver.lend(|_, place| place.fill(0xee)).unwrap();
        }
    }

    fn deliver(&mut self, now: Timestamp, id: PacketId, body: &[u8]) -> Result<(), DropReason> {
        if self.expect(id, body) {
            let look = self.chunks.look();
            let is_next = self.receiver.lend(|index, place| {
                place.copy_from_slice(body);
                look.unwrap().is_repeated_with(index, place)
            });
            if is_next.unwrap() {
                self.receiver.handle_next(now);
                self.taken_in_place += 1;
                return Ok(());
            }
        }
        self.receiver.on_packet(now, id);
        if let Some(chunk) = self.chunks.read(body) {
            return self.receiver.handle_chunk(now, id, body, &chunk);
        }
        match message::decode(body) {
            Ok(Incoming::Media(MediaBody::Video(chunk))) => self.receiver.handle_chunk(now, id, body, &chunk),
            Ok(Incoming::Media(MediaBody::Fec(fec))) => self.receiver.handle_fec(now, id, &fec),
            _ => Err(DropReason::Malformed),
        }
    }

    /// What can be seen of it; each bit of `of` stands for a call that changes it.
    fn outcome(&mut self, now: Timestamp, of: u8) -> String {
        let mut seen = String::new();
        let is_wanted = |bit: u8| of >> bit & 1 == 1;
        while is_wanted(0)
            && let Some(slice) = self.receiver.poll_slice(now)
        {
            seen += &format!("{slice:?}\n");
        }
        if is_wanted(1) {
            let mut ids = [PacketId(0); 64];
            let asked = self.receiver.poll_nack(now, &mut ids);
            seen += &format!("{:?}\n", &ids[..asked]);
        }
        if is_wanted(2) {
            seen += &format!("{:?}\n", self.receiver.poll_request(now));
        }
        if is_wanted(3) {
            self.receiver.handle_timeout(now);
        }
        if is_wanted(4) {
            seen += &format!("{:?}\n", self.receiver.poll_arrivals(now));
        }
        format!("{seen}{:?} {:?}", self.receiver.poll_timeout(), self.receiver.counters())
    }
}

/// The bodies of a frame with these slices, and with `parities` behind them.
fn bodies(frame: u64, first_id: u64, slices: &[usize], parities: usize) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for (index, len) in slices.iter().enumerate() {
        let mut data = vec![0; *len];
        fastrand::Rng::with_seed(frame * 100 + index as u64).fill(&mut data);
        let chunks: Vec<&[u8]> = data.chunks(CHUNK_LEN).collect();
        for (chunk_index, payload) in chunks.iter().enumerate() {
            let chunk = VideoChunk {
                frame_id: FrameId(frame),
                chunk_index: chunk_index as u32,
                chunk_count: chunks.len() as u32,
                timestamp_us: frame * 8_000,
                keyframe: frame == 0,
                payload,
                capture_us: 900,
                encode_us: 4000,
                slice_index: index as u32,
                last_slice: index + 1 == slices.len(),
                reference_distance: u32::from(frame > 0),
            };
            let mut body = vec![0; chunk.encoded_len()];
            chunk.encode(&mut body).unwrap();
            bodies.push(body);
        }
    }
    let mut group = Group::new(parities, 300);
    for body in &bodies {
        let Some(place) = group.next_place(body.len()) else { return bodies };
        place.copy_from_slice(body);
        group.push(body.len());
    }
    let shards = bodies.len() as u32;
    for parity in 0..group.finish(parities) {
        let fec = FecPacket {
            group_id: GroupId(frame),
            first_packet_id: PacketId(first_id),
            shard_count: shards,
            parity_index: parity as u32,
            payload: group.parity(parity),
            shard_lengths: ShardLengths::Regular { each: 0, last: 0 },
            parity_count: parities as u32,
            frame_id: FrameId(frame),
            code: fec::Code::ReedSolomon.to_wire(),
            runs: PackedVarints::empty(),
        };
        let mut body = vec![0; fec.encoded_len()];
        let len = fec.encode(&mut body).unwrap();
        body.truncate(len);
        bodies.push(body);
    }
    bodies
}

/// What happens to a packet.
#[derive(Clone, Debug)]
enum Fate {
    Arrives,
    IsLost,
    /// After so many others.
    IsLate(usize),
    ComesTwice,
    /// With another byte, which the peer has sealed.
    IsOdd(prop::sample::Index, u8),
    /// A forged one with its id comes before.
    IsForged,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Arrives),
        1 => Just(Fate::IsLost),
        1 => (1usize..20).prop_map(Fate::IsLate),
        1 => Just(Fate::ComesTwice),
        1 => (any::<prop::sample::Index>(), 1u8..).prop_map(|(at, bits)| Fate::IsOdd(at, bits)),
        1 => Just(Fate::IsForged),
    ]
}

proptest! {
    #[test]
    fn what_is_opened_in_place_ends_as_what_is_copied(
        frames in prop::collection::vec((prop::collection::vec(1usize..3000, 1..4), 0usize..4), 1..12),
        fates in prop::collection::vec((fate(), 0u64..400, prop_oneof![2 => Just(0), 1 => any::<u8>()]), 1..60),
        resends: bool,
    ) {
        let (mut plain, mut fast) = (Rig::new(false), Rig::new(true));
        let mut flight: Vec<(usize, PacketId, Vec<u8>)> = Vec::new();
        let (mut id, mut us) = (0, 0);
        let mut fates = fates.iter().cycle();
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for (frame, (slices, parities)) in frames.iter().enumerate() {
            let mut todo = bodies(frame as u64, id, slices, *parities);
            todo.reverse();
            while let Some(mut body) = todo.pop() {
                let (fate, pause_us, seen) = fates.next().unwrap();
                let packet_id = PacketId(id);
                id += 1;
                us += pause_us;
                sent.push(body.clone());
                let now = Timestamp::from_micros(us);
                let mut due = Vec::new();
                match fate {
                    Fate::Arrives => due.push((packet_id, body)),
                    Fate::IsLost => {}
                    Fate::IsLate(after) => flight.push((*after, packet_id, body)),
                    Fate::ComesTwice => due.extend([(packet_id, body.clone()), (packet_id, body)]),
                    Fate::IsOdd(at, bits) => {
                        let at = at.index(body.len());
                        body[at] ^= bits;
                        due.push((packet_id, body));
                    }
                    Fate::IsForged => {
                        fast.forge(packet_id, &body);
                        due.push((packet_id, body));
                    }
                }
                for (after, ..) in &mut flight {
                    *after -= 1;
                }
                due.extend(flight.extract_if(.., |(after, ..)| *after == 0).map(|(_, id, body)| (id, body)));
                for (id, body) in due {
                    prop_assert_eq!(plain.deliver(now, id, &body), fast.deliver(now, id, &body));
                    if seen & 32 != 0 {
                        let mut ids = [PacketId(0); 8];
                        let asked = plain.receiver.poll_nack(now, &mut ids);
                        let mut same = [PacketId(0); 8];
                        prop_assert_eq!(asked, fast.receiver.poll_nack(now, &mut same));
                        prop_assert_eq!(ids, same);
                        if resends {
                            todo.extend(ids[..asked].iter().filter_map(|id| sent.get(id.0 as usize).cloned()));
                        }
                    }
                    prop_assert_eq!(plain.outcome(now, *seen), fast.outcome(now, *seen));
                }
            }
            let now = Timestamp::from_micros(us);
            let reports = [&mut plain, &mut fast].map(|rig| rig.outcome(now, u8::MAX));
            prop_assert_eq!(&reports[0], &reports[1]);
        }
        prop_assert_eq!(plain.taken_in_place, 0);
    }
}

#[test]
fn all_but_the_first_and_the_last_of_a_slice_are_opened_in_place() {
    let mut rig = Rig::new(true);
    let mut id = 0;
    for frame in 0..20 {
        for body in bodies(frame, id, &[2_900, 2_000], 0) {
            rig.deliver(Timestamp::from_micros(frame * 8_000), PacketId(id), &body).unwrap();
            id += 1;
        }
        let mut bytes = Vec::new();
        while let Some(slice) = rig.receiver.poll_slice(Timestamp::from_micros(frame * 8_000)) {
            bytes.push(slice.data.len());
        }
        assert_eq!(bytes, [2_900, 2_000]);
    }
    // Of fifteen and ten. The generic encoder leaves out an index of 0, so the second of each looks different, too.
    assert_eq!(rig.taken_in_place, 20 * (12 + 7));
}
