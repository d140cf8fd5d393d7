//! Packet ids and keys of a session, and their renewal (RIFT section 4).
//!
//! Owns the id of the next packet, the keys of both directions and their generations, and the replay
//! window. Never sends: a key update is announced by the link. Invariants: an id is sealed once; no
//! id from the announced first one on is sealed before the peer acknowledged; and every packet that
//! the replay window would still take finds its key.

use rift_crypto::{OpenError, OpenKey, Replay, ReplayWindow, SealKey};

use super::Violation;
use crate::message::proto::KeyUpdate;
use crate::wire::{TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader};
use crate::{Alias, DropReason, PacketId, Timestamp};

/// Ids between the announcement of a key and its first use, besides those of about one second at the
/// present rate: time for the announcement and its acknowledgement to get through.
const MARGIN_MIN: u64 = 1024;
/// More than a second's packets at 40 Gbit/s are never reserved.
const MARGIN_MAX: u64 = 1 << 22;
/// Ids that only the session's own upkeep may use while a key update is not acknowledged: pings, the
/// announcement itself and its repetitions, for as long as the peer may take.
const UPKEEP_RESERVE: u64 = 512;
/// How long the peer may take to acknowledge a key update, in microseconds.
const ACK_TIMEOUT_US: u64 = 5_000_000;
/// Where ids end for us: 2^62, ages before they could wrap.
const LAST_ID: u64 = 1 << 62;
/// Without key updates, keys are not used for longer than a day (as published), in microseconds.
const LIFETIME_MAX_US: u64 = 24 * 3_600_000_000;
/// Without key updates, nor for more packets than this.
const PACKETS_MAX: u64 = 1 << 32;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Keeping the session going: may use the last ids before a key change.
    Upkeep,
    /// Everything else: waits.
    Payload,
}

/// When keys are renewed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RenewalRule {
    pub(crate) packets: u64,
    pub(crate) lifetime_us: u64,
}

/// Keys are used up and the session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Seals one direction.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: SealKey,
    generation: u32,
    pending: Option<PendingKey>,
    next_id: u64,
    rule: RenewalRule,
    /// First id under the present key, and since when it is in use.
    since_id: u64,
    since: Timestamp,
    meter: RateMeter,
    /// Whether the peer understands key updates; until it said so, it does not.
    is_renewable: bool,
}

#[derive(Debug)]
struct PendingKey {
    key: SealKey,
    first_id: u64,
    announced_at: Timestamp,
    is_acknowledged: bool,
}

/// Ids used in the last whole second.
#[derive(Debug)]
struct RateMeter {
    since: Timestamp,
    since_id: u64,
    per_second: u64,
}

impl Sealer {
    pub(crate) fn new(now: Timestamp, key: SealKey, first_id: PacketId, rule: RenewalRule) -> Self {
        Self {
            key,
            generation: 0,
            pending: None,
            next_id: first_id.0,
            rule,
            since_id: first_id.0,
            since: now,
            meter: RateMeter { since: now, since_id: first_id.0, per_second: 0 },
            is_renewable: false,
        }
    }

    pub(crate) fn set_renewable(&mut self, is_renewable: bool) {
        self.is_renewable = is_renewable;
    }

    /// The id of the next packet.
    pub(crate) fn next_id(&self) -> PacketId {
        PacketId(self.next_id)
    }

    /// How often the key was changed.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// How many packets can be sealed now.
    pub(crate) fn available(&self, purpose: Use) -> u64 {
        match &self.pending {
            Some(pending) if !pending.is_acknowledged => {
                let left = pending.first_id - self.next_id;
                if purpose == Use::Upkeep { left } else { left.saturating_sub(UPKEEP_RESERVE) }
            }
            _ => LAST_ID.saturating_sub(self.next_id),
        }
    }

    /// Seals the body that stands behind the room for the header in `out`, writes the header, and
    /// returns the length of the datagram. The caller asked [`available`](Self::available) before.
    /// `None` if nothing may be sealed or `out` has no room for the tag.
    #[inline]
    pub(crate) fn seal(&mut self, alias: Alias, out: &mut [u8], body_len: usize) -> Option<usize> {
        self.seal_and(alias, out, body_len, |key, id, header, sealed| {
            let (body, tag) = sealed.split_at_mut(body_len);
            tag.copy_from_slice(&key.seal_in_place(id, header, body));
        })
    }

    /// As [`seal`](Self::seal), with a body that lies elsewhere and is not copied but by encrypting it.
    #[inline]
    pub(crate) fn seal_from(&mut self, alias: Alias, body: &[u8], out: &mut [u8]) -> Option<usize> {
        self.seal_and(alias, out, body.len(), |key, id, header, sealed| {
            key.seal_into(id, header, body, sealed);
        })
    }

    #[inline]
    fn seal_and(
        &mut self,
        alias: Alias,
        out: &mut [u8],
        body_len: usize,
        seal: impl FnOnce(&SealKey, u64, &[u8; TRANSPORT_HEADER_LEN], &mut [u8]),
    ) -> Option<usize> {
        if self.available(Use::Upkeep) == 0 {
            return None;
        }
        let total = TRANSPORT_HEADER_LEN + body_len + TAG_LEN;
        let (head, sealed) = out.get_mut(..total)?.split_first_chunk_mut()?;
        *head = TransportHeader { alias, packet_id: PacketId(self.next_id) }.encode();
        if self.pending.as_ref().is_some_and(|p| p.first_id == self.next_id) {
            self.switch();
        }
        seal(&self.key, self.next_id, head, sealed);
        self.next_id += 1;
        Some(total)
    }

    /// The announcement that is due, if one is.
    ///
    /// # Errors
    /// [`Exhausted`] if the peer does not acknowledge, cannot renew, or ids are used up.
    pub(crate) fn poll_update(&mut self, now: Timestamp) -> Result<Option<KeyUpdate>, Exhausted> {
        self.meter.on_time(now, self.next_id);
        if self.next_id >= LAST_ID {
            return Err(Exhausted);
        }
        let age_us = now.micros_since(self.since);
        let used = self.next_id - self.since_id;
        if !self.is_renewable {
            let is_over = age_us >= LIFETIME_MAX_US || used >= PACKETS_MAX;
            return if is_over { Err(Exhausted) } else { Ok(None) };
        }
        if let Some(pending) = &self.pending {
            let is_late = !pending.is_acknowledged && now.micros_since(pending.announced_at) > ACK_TIMEOUT_US;
            return if is_late { Err(Exhausted) } else { Ok(None) };
        }
        if age_us < self.rule.lifetime_us && used < self.rule.packets {
            return Ok(None);
        }
        let first_id = self.next_id + (MARGIN_MIN + self.meter.per_second).min(MARGIN_MAX);
        let key = self.key.next_generation();
        self.pending = Some(PendingKey { key, first_id, announced_at: now, is_acknowledged: false });
        // The age of the next key counts from here: its announcement ends the duty to announce it.
        self.since = now;
        Ok(Some(KeyUpdate { generation: self.generation + 1, first_packet_id: first_id }))
    }

    /// The peer has the next key.
    ///
    /// # Errors
    /// [`Violation::KeyUpdate`] for a generation that was not announced.
    pub(crate) fn on_update_ack(&mut self, generation: u32) -> Result<(), Violation> {
        match &mut self.pending {
            Some(pending) if generation == self.generation + 1 => {
                pending.is_acknowledged = true;
                Ok(())
            }
            _ => Err(Violation::KeyUpdate),
        }
    }

    /// The clock jumped.
    pub(crate) fn on_clock_jump(&mut self, now: Timestamp) {
        self.since = now;
        self.meter.since = now;
        if let Some(pending) = &mut self.pending {
            pending.announced_at = now;
        }
    }

    fn switch(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.key = pending.key;
            self.generation += 1;
            self.since_id = pending.first_id;
        }
    }
}

impl RateMeter {
    fn on_time(&mut self, now: Timestamp, next_id: u64) {
        let elapsed_us = now.micros_since(self.since);
        if elapsed_us >= 1_000_000 {
            self.per_second = (next_id - self.since_id).saturating_mul(1_000_000) / elapsed_us;
            self.since = now;
            self.since_id = next_id;
        }
    }
}

/// Opens one direction.
#[derive(Debug)]
pub(crate) struct Opener {
    /// Newest first; with the first id that each opens. The last may be gone already.
    keys: [Option<(OpenKey, u64)>; 2],
    generation: u32,
    window: ReplayWindow,
    newest: Option<u64>,
}

impl Opener {
    pub(crate) fn new(key: OpenKey) -> Self {
        Self { keys: [Some((key, 0)), None], generation: 0, window: ReplayWindow::new(), newest: None }
    }

    /// The highest id that opened.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// How often the peer announced a new key.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Opens the datagram behind `header` in place and returns its body.
    ///
    /// # Errors
    /// The reason to drop it; nothing has changed then.
    #[inline]
    pub(crate) fn open<'a>(
        &mut self,
        packet_id: PacketId,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        self.check(packet_id)?;
        let (header, sealed) =
            datagram.split_first_chunk_mut::<TRANSPORT_HEADER_LEN>().ok_or(DropReason::TooShort)?;
        if sealed.len() < TAG_LEN {
            return Err(DropReason::TooShort);
        }
        let key = self.key(packet_id)?;
        let body = key.open_in_place(packet_id.0, header, sealed).map_err(|_| DropReason::BadSeal)?;
        self.on_opened(packet_id);
        Ok(body)
    }

    /// As [`open`](Self::open), with the body into `body`, which must have its length.
    ///
    /// # Errors
    /// As there. `body` then holds nothing usable.
    #[inline]
    pub(crate) fn open_into(
        &mut self,
        packet_id: PacketId,
        datagram: &[u8],
        body: &mut [u8],
    ) -> Result<(), DropReason> {
        self.check(packet_id)?;
        let (header, sealed) =
            datagram.split_first_chunk::<TRANSPORT_HEADER_LEN>().ok_or(DropReason::TooShort)?;
        let key = self.key(packet_id)?;
        key.open_into(packet_id.0, header, sealed, body).map_err(|error| match error {
            OpenError::TooShort => DropReason::TooShort,
            OpenError::Forged => DropReason::BadSeal,
        })?;
        self.on_opened(packet_id);
        Ok(())
    }

    #[inline]
    fn check(&self, id: PacketId) -> Result<(), DropReason> {
        self.window.check(id.0).map_err(|replay| match replay {
            Replay::Duplicate => DropReason::Replayed,
            Replay::TooOld => DropReason::TooOld,
        })
    }

    #[inline]
    fn key(&self, id: PacketId) -> Result<&OpenKey, DropReason> {
        let found = self.keys.iter().flatten().find(|(_, first)| id.0 >= *first);
        found.map(|(key, _)| key).ok_or(DropReason::TooOld)
    }

    /// The packet is authentic.
    #[inline]
    fn on_opened(&mut self, PacketId(id): PacketId) {
        self.window.mark(id);
        if self.newest.is_none_or(|newest| id > newest) {
            self.newest = Some(id);
            self.forget_old_key(id);
        }
    }

    /// The peer announced a key.
    ///
    /// # Errors
    /// [`Violation::KeyUpdate`] if it is not the next one, or would begin among packets that came.
    pub(crate) fn on_update(&mut self, update: &KeyUpdate) -> Result<(), Violation> {
        let newest = self.newest.unwrap_or(0);
        let Some((key, first)) = &self.keys[0] else { return Err(Violation::KeyUpdate) };
        let is_in_turn = update.generation == self.generation.wrapping_add(1)
            && update.first_packet_id > newest
            && update.first_packet_id > *first
            && newest >= *first;
        if !is_in_turn {
            return Err(Violation::KeyUpdate);
        }
        let next = key.next_generation();
        self.keys[1] = self.keys[0].take();
        self.keys[0] = Some((next, update.first_packet_id));
        self.generation = update.generation;
        Ok(())
    }

    /// Wipes the old key when the window takes none of its packets any more.
    #[inline]
    fn forget_old_key(&mut self, newest: u64) {
        // The announced id is the peer's: it may be anything.
        let is_past = |first: u64| newest.checked_sub(first).is_some_and(|d| d >= ReplayWindow::SIZE);
        if self.keys[1].is_some() && self.keys[0].as_ref().is_some_and(|(_, first)| is_past(*first)) {
            self.keys[1] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_crypto::Suite;

    const ALIAS: Alias = Alias(5);
    const RULE: RenewalRule = RenewalRule { packets: 5000, lifetime_us: 3_600_000_000 };

    fn pair(first_id: u64) -> (Sealer, Opener) {
        let secret = [9; 32];
        let mut sealer = Sealer::new(
            Timestamp::ZERO,
            SealKey::new(Suite::ChaCha20Poly1305, secret),
            PacketId(first_id),
            RULE,
        );
        sealer.set_renewable(true);
        (sealer, Opener::new(OpenKey::new(Suite::ChaCha20Poly1305, secret)))
    }

    fn packet(sealer: &mut Sealer) -> Option<(PacketId, Vec<u8>)> {
        let id = sealer.next_id();
        let mut out = vec![0; 64];
        out[TRANSPORT_HEADER_LEN..][..8].copy_from_slice(&id.0.to_be_bytes());
        let len = sealer.seal(ALIAS, &mut out, 8)?;
        out.truncate(len);
        Some((id, out))
    }

    fn open(opener: &mut Opener, (id, mut bytes): (PacketId, Vec<u8>)) -> Result<(), DropReason> {
        let body = opener.open(id, &mut bytes)?;
        assert_eq!(body, id.0.to_be_bytes());
        Ok(())
    }

    /// Proves R-SEAL-6, R-SEAL-7 and R-SEAL-8: a direction changes keys four times, across 2^32, with
    /// packets of both keys overtaking each other, and loses none.
    #[test]
    fn no_packet_in_flight_is_lost_to_a_key_update() {
        let (mut sealer, mut opener) = pair((1 << 32) - 9000);
        let mut held: Vec<(PacketId, Vec<u8>)> = vec![];
        let mut opened = 0u64;
        for n in 0..24_000u64 {
            if let Some(update) = sealer.poll_update(Timestamp::ZERO).unwrap() {
                opener.on_update(&update).unwrap();
                sealer.on_update_ack(update.generation).unwrap();
            }
            let packet = packet(&mut sealer).unwrap();
            // Every third packet comes 1500 later: the window still takes it.
            if n % 3 == 0 {
                held.push(packet);
            } else {
                open(&mut opener, packet).unwrap();
                opened += 1;
            }
            if held.first().is_some_and(|(id, _)| id.0 + 1500 < sealer.next_id().0) {
                open(&mut opener, held.remove(0)).unwrap();
                opened += 1;
            }
        }
        assert_eq!((sealer.generation(), opener.generation()), (3, 4));
        assert_eq!(opened + held.len() as u64, 24_000);
        assert!(sealer.next_id().0 > 1 << 32);
    }

    /// Proves R-SEAL-7: without acknowledgement nothing from the announced id on is sealed, the last
    /// ids are kept for upkeep, and the session does not go on for ever.
    #[test]
    fn an_unacknowledged_update_stops_payload_then_everything_then_the_session() {
        let (mut sealer, _) = pair(0);
        (0..RULE.packets).for_each(|_| drop(packet(&mut sealer)));
        let update = sealer.poll_update(Timestamp::ZERO).unwrap().unwrap();
        assert_eq!(sealer.poll_update(Timestamp::ZERO), Ok(None));
        while sealer.available(Use::Payload) > 0 {
            packet(&mut sealer).unwrap();
        }
        assert_eq!(sealer.available(Use::Upkeep), UPKEEP_RESERVE);
        while sealer.available(Use::Upkeep) > 0 {
            packet(&mut sealer).unwrap();
        }
        assert_eq!(sealer.next_id().0, update.first_packet_id);
        assert!(packet(&mut sealer).is_none());
        assert_eq!(sealer.poll_update(Timestamp::from_micros(ACK_TIMEOUT_US + 1)), Err(Exhausted));
        sealer.on_update_ack(update.generation).unwrap();
        assert!(packet(&mut sealer).is_some());
    }

    /// Proves R-SEAL-9.
    #[test]
    fn the_session_ends_long_before_an_id_could_wrap() {
        let (mut sealer, _) = pair(LAST_ID - 1);
        assert!(packet(&mut sealer).is_some());
        assert!(packet(&mut sealer).is_none());
        assert_eq!(sealer.poll_update(Timestamp::ZERO), Err(Exhausted));
    }

    #[test]
    fn a_key_is_renewed_by_time_too() {
        let (mut sealer, _) = pair(0);
        assert_eq!(sealer.poll_update(Timestamp::from_micros(RULE.lifetime_us - 1)), Ok(None));
        assert!(sealer.poll_update(Timestamp::from_micros(RULE.lifetime_us)).unwrap().is_some());
    }

    #[test]
    fn a_peer_that_cannot_renew_gets_a_day() {
        let (mut sealer, _) = pair(0);
        sealer.set_renewable(false);
        assert_eq!(sealer.poll_update(Timestamp::from_micros(LIFETIME_MAX_US - 1)), Ok(None));
        assert_eq!(sealer.poll_update(Timestamp::from_micros(LIFETIME_MAX_US)), Err(Exhausted));
    }

    #[test]
    fn updates_out_of_turn_are_violations() {
        let (mut sealer, mut opener) = pair(0);
        (0..10).for_each(|_| open(&mut opener, packet(&mut sealer).unwrap()).unwrap());
        let update = |generation, first_packet_id| KeyUpdate { generation, first_packet_id };
        assert_eq!(opener.on_update(&update(2, 100)), Err(Violation::KeyUpdate));
        assert_eq!(opener.on_update(&update(1, 9)), Err(Violation::KeyUpdate));
        assert_eq!(opener.on_update(&update(1, 100)), Ok(()));
        assert_eq!(opener.on_update(&update(1, 100)), Err(Violation::KeyUpdate));
        assert_eq!(opener.on_update(&update(2, 200)), Err(Violation::KeyUpdate), "the last is not in use");
        assert_eq!(sealer.on_update_ack(1), Err(Violation::KeyUpdate));
        // The farthest id there is: never in use, and no overflow.
        let (mut sealer, mut opener) = pair(0);
        assert_eq!(opener.on_update(&update(1, u64::MAX)), Ok(()));
        assert_eq!(open(&mut opener, packet(&mut sealer).unwrap()), Ok(()));
    }

    /// Proves R-SEAL-4: what does not open does not mark.
    #[test]
    fn a_forged_packet_does_not_move_the_window() {
        let (mut sealer, mut opener) = pair(0);
        let first = packet(&mut sealer).unwrap();
        let forged = TransportHeader { alias: ALIAS, packet_id: PacketId(1 << 40) }.encode();
        let mut bytes = first.1.clone();
        bytes[..TRANSPORT_HEADER_LEN].copy_from_slice(&forged);
        assert_eq!(opener.open(PacketId(1 << 40), &mut bytes), Err(DropReason::BadSeal));
        assert_eq!(open(&mut opener, first.clone()), Ok(()));
        assert_eq!(open(&mut opener, first), Err(DropReason::Replayed));
    }
}
