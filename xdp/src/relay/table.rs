//! Where the program finds sessions: buckets of numbers, and sessions by number (`src/bpf/table.h` is the same in C).
//!
//! Owns what the three maps say about sessions, but for their states. A lock of userspace keeps threads that enter sessions apart,
//! for a few microseconds; the program never takes it. Invariants: a session is complete before a bucket says where it is; it
//! stays where it is until it is taken out; its word changes before anything else of it does, in a write that changes nothing else, and once
//! more when all of it is there.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use super::layout::{BUCKET_LEN, ID_LEN, PLACES, SESSION_LEN, Session, Word, number};

/// Buckets that an id may be in (`CHOICES` of the program).
const CHOICES: usize = 3;
/// Sessions for each bucket of 8 places: so few that one in a thousand is full, and all three of an id's in one case of a thousand
/// million.
const PER_BUCKET: usize = 2;
/// More, where so few are there that the three are often one.
const BUCKETS_MORE: usize = 64;

/// What sends ids to buckets, and how many of these there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash {
    keys: [u64; 3],
    buckets: u32,
}

impl Hash {
    /// For so many sessions; drawn anew each time.
    pub(super) fn new(sessions: u32) -> Self {
        let random = RandomState::new();
        Self {
            keys: [1u8, 2, 3].map(|number| random.hash_one(number) | 1),
            buckets: buckets(sessions as usize) as u32,
        }
    }

    pub(super) fn keys(&self) -> [u64; 3] {
        self.keys
    }

    pub(super) fn buckets(&self) -> u32 {
        self.buckets
    }

    /// The tag of an id, and its buckets.
    fn of(&self, id: &[u8; ID_LEN]) -> (u32, [u32; CHOICES]) {
        let half = |at: usize| id[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let [first, second, third] = self.keys;
        let hash = mixed(half(0).wrapping_mul(first).wrapping_add(half(8).wrapping_mul(second)));
        let other = hash.wrapping_mul(third);
        let bucket = |part: u64| (((part & 0xffff_ffff) * u64::from(self.buckets)) >> 32) as u32;
        (other as u32, [bucket(hash >> 32), bucket(hash), bucket(other >> 32)])
    }
}

/// Every bit of it depends on every bit of a word (Stafford's variant 13 of the end of `MurmurHash3`): ids may be counted up.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Buckets for so many sessions.
pub(super) fn buckets(sessions: usize) -> usize {
    sessions.div_ceil(PER_BUCKET) + BUCKETS_MORE
}

#[derive(Debug)]
pub(super) struct Table {
    buckets: MapHandle,
    sessions: MapHandle,
    hash: Hash,
    room: usize,
    entered: Mutex<usize>,
}

type Bytes = [u8; SESSION_LEN];
type Bucket = [u8; BUCKET_LEN];

impl Table {
    pub(super) fn new(buckets: MapHandle, sessions: MapHandle, hash: Hash, room: u32) -> Self {
        Self { buckets, sessions, hash, room: room as usize, entered: Mutex::new(0) }
    }

    /// Enters a session or replaces it. `None`: there is one, and userspace carries it.
    pub(super) fn put(&self, id: &[u8; ID_LEN], slot: u32, session: Option<&Session>) -> io::Result<()> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = self.read(slot)?;
        let mut word = Word::of(&bytes);
        let is_there = word.is_entered && bytes.starts_with(id);
        if word.is_entered && !is_there {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the slot is another session's"));
        }
        if !is_there && *entered >= self.room {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the map of sessions is full"));
        }
        let generation = session.map_or(0, |session| session.generation);
        word.is_entered = true;
        word.changes = word.changes.wrapping_add(1);
        if word.generation != 0 {
            word.generation = 0;
            self.write(slot, &mut bytes, word)?;
            if session.is_none() {
                return Ok(());
            }
            word.changes = word.changes.wrapping_add(1);
        }
        // What is read in the meantime has no generation.
        bytes = session.map_or([0; SESSION_LEN], Session::encode);
        bytes[..ID_LEN].copy_from_slice(id);
        self.write(slot, &mut bytes, word)?;
        if generation != 0 {
            word.generation = generation;
            self.write(slot, &mut bytes, word)?;
        }
        if !is_there {
            if let Err(error) = self.point(id, slot) {
                self.write(slot, &mut bytes, Word { generation: 0, is_entered: false, ..word })?;
                return Err(error);
            }
            *entered += 1;
        }
        Ok(())
    }

    /// Takes a session out, and leaves nothing of it.
    pub(super) fn remove(&self, id: &[u8; ID_LEN]) -> io::Result<()> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let (tag, choices) = self.hash.of(id);
        for choice in choices {
            let mut bucket = self.read_bucket(choice)?;
            for place in 0..PLACES {
                let (found, slot) = entry(&bucket, place);
                let Some(slot) = slot.checked_sub(1).filter(|_| found == tag) else { continue };
                let mut bytes = self.read(slot)?;
                let word = Word::of(&bytes);
                if !bytes.starts_with(id) || !word.is_entered {
                    continue;
                }
                set_entry(&mut bucket, place, 0, 0);
                self.buckets
                    .update(&choice.to_ne_bytes(), &bucket, MapFlags::ANY)
                    .map_err(io::Error::other)?;
                *entered -= 1;
                let word = Word { generation: 0, is_entered: false, changes: word.changes.wrapping_add(1) };
                self.write(slot, &mut bytes, word)?;
                // Its keys are nobody's any more.
                return self.write(slot, &mut [0; SESSION_LEN], word);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "there is no such session"))
    }

    /// Has a bucket say where an id is: the first of its three that has room.
    fn point(&self, id: &[u8; ID_LEN], slot: u32) -> io::Result<()> {
        let (tag, choices) = self.hash.of(id);
        for choice in choices {
            let mut bucket = self.read_bucket(choice)?;
            if let Some(place) = (0..PLACES).find(|&place| entry(&bucket, place).1 == 0) {
                set_entry(&mut bucket, place, tag, slot + 1);
                return self
                    .buckets
                    .update(&choice.to_ne_bytes(), &bucket, MapFlags::ANY)
                    .map_err(io::Error::other);
            }
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, "the buckets of a session are full"))
    }

    fn read(&self, slot: u32) -> io::Result<Bytes> {
        let mut bytes = [0; SESSION_LEN];
        read(&self.sessions, slot, &mut bytes)?;
        Ok(bytes)
    }

    fn read_bucket(&self, number: u32) -> io::Result<Bucket> {
        let mut bytes = [0; BUCKET_LEN];
        read(&self.buckets, number, &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, slot: u32, bytes: &mut Bytes, word: Word) -> io::Result<()> {
        word.write_to(bytes);
        self.sessions.update(&slot.to_ne_bytes(), bytes, MapFlags::ANY).map_err(io::Error::other)
    }
}

fn read(map: &MapHandle, number: u32, bytes: &mut [u8]) -> io::Result<()> {
    match map.lookup_into(&number.to_ne_bytes(), bytes, MapFlags::ANY) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such slot")),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Tag and number of a place.
fn entry(bucket: &Bucket, place: usize) -> (u32, u32) {
    (number(&bucket[4 * place..]), number(&bucket[4 * (PLACES + place)..]))
}

fn set_entry(bucket: &mut Bucket, place: usize, tag: u32, slot: u32) {
    bucket[4 * place..][..4].copy_from_slice(&tag.to_ne_bytes());
    bucket[4 * (PLACES + place)..][..4].copy_from_slice(&slot.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use libbpf_rs::{MapType, libbpf_sys};

    use super::*;
    use crate::relay::{Flow, Peer};

    /// How many of so many sessions find room in their first bucket; all of them find some.
    fn placed_first(sessions: u32, id: impl Fn(u32) -> [u8; ID_LEN]) -> u32 {
        let hash = Hash::new(sessions);
        let mut filled = vec![0; hash.buckets() as usize];
        let mut first = 0;
        for session in 0..sessions {
            let (_, choices) = hash.of(&id(session));
            let choice = choices.iter().position(|&bucket| filled[bucket as usize] < PLACES);
            let choice = choice.expect("three full buckets");
            filled[choices[choice] as usize] += 1;
            first += u32::from(choice == 0);
        }
        first
    }

    /// Whether ids are random, counted up, or differ in one byte of either half only; in large tables and in many small ones.
    #[test]
    fn sessions_find_room_in_their_first_bucket() {
        let spread =
            |n: u32| u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
        let counted = |n: u32| u128::from(n).to_be_bytes();
        let shifted = |n: u32| (u128::from(n) << 64).to_be_bytes();
        for id in [spread, counted, shifted] {
            let first = placed_first(100_000, id);
            assert!(first > 98_000, "{first}");
            for _ in 0..1000 {
                placed_first(128, id);
            }
        }
    }

    /// A table for so many sessions, with as many slots; `None`, and told, where maps cannot be made.
    fn table(sessions: u32) -> Option<Table> {
        let hash = Hash::new(sessions);
        let size = size_of::<libbpf_sys::bpf_map_create_opts>() as u64;
        let opts = libbpf_sys::bpf_map_create_opts { sz: size, ..Default::default() };
        let map =
            |len: usize, count| MapHandle::create(MapType::Array, None::<&str>, 4, len as u32, count, &opts);
        match (map(BUCKET_LEN, hash.buckets()), map(SESSION_LEN, sessions)) {
            (Ok(buckets), Ok(slots)) => Some(Table::new(buckets, slots, hash, sessions)),
            (buckets, slots) => {
                eprintln!("skipped: maps cannot be made: {:?}, {:?}", buckets.err(), slots.err());
                None
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_session_that_is_gone() {
        let Some(table) = table(4) else { return };
        let flow = Flow { key: [u64::MAX, 7], expires_ns: 5, hard_rate: 6, soft_rate: 8 };
        let peer = Peer { address: "192.0.2.1:1000".parse().unwrap(), way: 3 };
        let session = Session { slot: 2, generation: 9, peers: [peer; 2], flows: [flow; 2] };
        let id = [4; ID_LEN];
        table.put(&id, 2, Some(&session)).unwrap();
        let key = u64::MAX.to_ne_bytes();
        let holds = |table: &Table| table.read(2).unwrap().windows(8).any(|bytes| bytes == key);
        assert!(holds(&table));
        assert!(table.put(&[5; ID_LEN], 2, None).is_err(), "the slot is taken");
        table.remove(&id).unwrap();
        let mut left = table.read(2).unwrap();
        let word = Word::of(&left);
        assert!(!word.is_entered && word.generation == 0 && word.changes != 0);
        Word::default().write_to(&mut left);
        assert_eq!(left, [0; SESSION_LEN]);
        assert_eq!(table.remove(&id).unwrap_err().kind(), io::ErrorKind::NotFound);
        table.put(&[5; ID_LEN], 2, None).unwrap();
        assert!(!holds(&table));
    }
}
