//! A toy protocol, just good enough for a path without loss, that can be told to make one mistake.
//!
//! It exists so that each checker is seen to find what it is there for.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use rift_core::endpoint::Ecn;
use rift_core::wire::{Header, TRANSPORT_HEADER_LEN, TransportHeader};
use rift_core::{Alias, DropReason, FrameId, PacketId, Timestamp};
use rift_sim::endpoint::{
    Client, ClientNotice, Departure, EncodedSlice, Endpoint, Host, HostNotice, Input, WholeSlice,
};
use rift_sim::{Fingerprint, Peers, Scenario};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    PacketIdTwice,
    SendInTheClear,
    DamageSlice,
    SliceTwice,
    HoldFramesBack,
    LoseReleases,
    InputTwice,
    NeverSleeps,
    NeverStopsSending,
    NoChecksum,
    AnswerAnybody,
    AskForKeyframes,
    NeverConnect,
}

const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const SLICE: u8 = 2;
const INPUT: u8 = 3;
const BYE: u8 = 4;
const TAG_LEN: usize = 16;
const CHUNK_LEN: usize = 1_000;
const HELLO_LEN: usize = 1_000;

/// What both ends have.
struct End {
    mistake: Mistake,
    alias: Alias,
    next: u64,
    out: VecDeque<Vec<u8>>,
    peer: Option<SocketAddr>,
}

impl End {
    fn new(mistake: Mistake, alias: u32) -> Self {
        Self { mistake, alias: Alias(alias), next: 0, out: VecDeque::new(), peer: None }
    }

    fn queue(&mut self, kind: u8, content: &[u8]) {
        let header = TransportHeader { alias: self.alias, packet_id: PacketId(self.next) };
        self.next += 1;
        if self.mistake == Mistake::PacketIdTwice && self.next == 500 {
            self.next -= 1;
        }
        let mut bytes = header.encode().to_vec();
        if self.mistake == Mistake::NoChecksum && self.next == 500 {
            bytes[16] ^= 1;
        }
        bytes.push(kind);
        bytes.extend_from_slice(content);
        if self.mistake != Mistake::SendInTheClear {
            bytes[TRANSPORT_HEADER_LEN..].iter_mut().for_each(|b| *b ^= 0xa5);
        }
        let tag = Fingerprint::of(&bytes).to_le_bytes();
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(&tag);
        self.out.push_back(bytes);
    }

    fn open(&self, datagram: &[u8]) -> Result<(u8, Vec<u8>), DropReason> {
        Header::decode(datagram)?;
        let (sealed, tag) = datagram.split_at(datagram.len() - TAG_LEN);
        if tag[..8] != Fingerprint::of(sealed).to_le_bytes() {
            return Err(DropReason::BadSeal);
        }
        let mut body = sealed[TRANSPORT_HEADER_LEN..].to_vec();
        if self.mistake != Mistake::SendInTheClear {
            body.iter_mut().for_each(|b| *b ^= 0xa5);
        }
        let kind = body.remove(0);
        Ok((kind, body))
    }

    fn transmit(&mut self, buf: &mut [u8]) -> Option<Departure> {
        let to = self.peer?;
        let bytes = self.out.pop_front()?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        if self.mistake == Mistake::NeverStopsSending && self.next > 500 {
            self.queue(SLICE, &[]);
        }
        Some(Departure { to, len: bytes.len(), segment_len: bytes.len(), ecn: Ecn::NotEct })
    }
}

pub(crate) struct ToyHost {
    end: End,
    notices: VecDeque<HostNotice>,
}

impl Endpoint for ToyHost {
    fn handle_datagram(
        &mut self,
        _: Timestamp,
        from: SocketAddr,
        _: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let (kind, body) = self.end.open(datagram)?;
        match kind {
            HELLO if self.end.peer.is_none() => {
                self.end.peer = Some(from);
                self.end.queue(WELCOME, &[]);
                self.notices.push_back(HostNotice::SessionStarted);
                if self.end.mistake == Mistake::AnswerAnybody {
                    // Sends video to an address that it did not check.
                    return Err(DropReason::Unexpected);
                }
            }
            INPUT => {
                let code = u16::from_le_bytes([body[1], body[2]]);
                let pressed = body[3] == 1;
                let (x, y) = (f32::from_bits(word(&body, 4)), f32::from_bits(word(&body, 8)));
                let input = match body[0] {
                    0 => Input::Key { code, pressed },
                    1 => Input::Button { button: code as u8, pressed },
                    2 => Input::Pointer { x, y },
                    _ => Input::Motion { dx: x, dy: y },
                };
                let release = matches!(input, Input::Key { pressed: false, .. });
                if !(release && self.end.mistake == Mistake::LoseReleases) {
                    self.notices.push_back(HostNotice::Input(input));
                }
                if self.end.mistake == Mistake::InputTwice {
                    self.notices.push_back(HostNotice::Input(input));
                }
                if self.end.mistake == Mistake::AskForKeyframes {
                    self.notices.push_back(HostNotice::KeyframeNeeded);
                }
            }
            BYE => {
                self.end.peer = None;
                self.notices.push_back(HostNotice::SessionEnded);
                self.notices.push_back(HostNotice::ReleaseAllInput);
            }
            _ => {}
        }
        Ok(())
    }
    fn handle_timeout(&mut self, _: Timestamp) {}
    fn poll_timeout(&self) -> Timestamp {
        if self.end.mistake == Mistake::NeverSleeps && self.end.next > 500 {
            Timestamp::ZERO
        } else {
            Timestamp::NEVER
        }
    }
    fn poll_transmit(&mut self, _: Timestamp, buf: &mut [u8]) -> Option<Departure> {
        self.end.transmit(buf)
    }
    fn close(&mut self, _: Timestamp) {}
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Host for ToyHost {
    fn submit_slice(&mut self, _: Timestamp, slice: &EncodedSlice<'_>) -> Result<(), DropReason> {
        let chunks = slice.data.chunks(CHUNK_LEN);
        let count = chunks.len();
        for (i, chunk) in chunks.enumerate() {
            let mut body = slice.frame_id.0.to_le_bytes().to_vec();
            body.extend(slice.captured_at.as_micros().to_le_bytes());
            body.extend([slice.index as u8, u8::from(slice.last), u8::from(i + 1 == count)]);
            body.extend_from_slice(chunk);
            self.end.queue(SLICE, &body);
        }
        Ok(())
    }
    fn poll_notice(&mut self) -> Option<HostNotice> {
        self.notices.pop_front()
    }
}

struct Slice {
    frame: u64,
    index: u32,
    last: bool,
    data: Vec<u8>,
}

pub(crate) struct ToyClient {
    end: End,
    next_hello: Timestamp,
    connected: bool,
    notices: VecDeque<ClientNotice>,
    partial: Vec<u8>,
    whole: VecDeque<Slice>,
    current: Option<Slice>,
    damaged: BTreeSet<u64>,
}

impl Endpoint for ToyClient {
    fn handle_datagram(
        &mut self,
        _: Timestamp,
        _: SocketAddr,
        _: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let (kind, body) = self.end.open(datagram)?;
        if kind == WELCOME && !self.connected && self.end.mistake != Mistake::NeverConnect {
            self.connected = true;
            self.next_hello = Timestamp::NEVER;
            self.notices.push_back(ClientNotice::Connected);
        }
        if kind == SLICE && body.len() > 19 {
            self.partial.extend_from_slice(&body[19..]);
            if body[18] == 1 {
                let frame = u64::from_le_bytes(body[..8].try_into().unwrap());
                let data = std::mem::take(&mut self.partial);
                let mut slice = Slice { frame, index: body[16].into(), last: body[17] == 1, data };
                if self.end.mistake == Mistake::DamageSlice && frame % 50 == 49 && self.damaged.insert(frame)
                {
                    slice.data[20] ^= 1;
                }
                if self.end.mistake == Mistake::SliceTwice && frame % 50 == 49 {
                    self.whole.push_back(Slice { data: slice.data.clone(), ..slice });
                }
                self.whole.push_back(slice);
            }
        }
        Ok(())
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        self.end.queue(HELLO, &[0; HELLO_LEN]);
        self.next_hello = now.plus_micros(100_000);
    }
    fn poll_timeout(&self) -> Timestamp {
        self.next_hello
    }
    fn poll_transmit(&mut self, _: Timestamp, buf: &mut [u8]) -> Option<Departure> {
        self.end.transmit(buf)
    }
    fn close(&mut self, _: Timestamp) {
        self.connected = false;
        self.end.queue(BYE, &[]);
        self.notices.push_back(ClientNotice::Closed);
    }
}

impl Client for ToyClient {
    fn submit_input(&mut self, _: Timestamp, input: Input) {
        let (kind, code, pressed, x, y) = match input {
            Input::Key { code, pressed } => (0, code, pressed, 0.0, 0.0),
            Input::Button { button, pressed } => (1, button.into(), pressed, 0.0, 0.0),
            Input::Pointer { x, y } => (2, 0, false, x, y),
            Input::Motion { dx, dy } => (3, 0, false, dx, dy),
        };
        let mut body = vec![kind];
        body.extend(u16::to_le_bytes(code));
        body.push(u8::from(pressed));
        body.extend(f32::to_le_bytes(x));
        body.extend(f32::to_le_bytes(y));
        self.end.queue(INPUT, &body);
    }
    fn poll_slice(&mut self, now: Timestamp) -> Option<WholeSlice<'_>> {
        self.current = self.whole.pop_front();
        let held_back = self.end.mistake == Mistake::HoldFramesBack;
        self.current.as_ref().map(|slice| WholeSlice {
            frame_id: FrameId(slice.frame),
            index: slice.index,
            last: slice.last,
            show: true,
            show_at: if held_back && slice.frame % 100 == 99 { now.plus_micros(120_000) } else { now },
            deadline: Timestamp::NEVER,
            data: &slice.data,
        })
    }
    fn poll_notice(&mut self) -> Option<ClientNotice> {
        self.notices.pop_front()
    }
    fn on_decoded(&mut self, _: Timestamp, _: FrameId) {}
    fn on_decode_failed(&mut self, _: Timestamp, _: FrameId) {}
    fn on_shown(&mut self, _: Timestamp, _: FrameId) {}
}

/// Makes toys that make `0`.
pub(crate) struct Toys(pub(crate) Mistake);

impl Peers for Toys {
    type Host = ToyHost;
    type Client = ToyClient;
    fn host(&mut self, _: &Scenario, seed: u64, _: Timestamp) -> ToyHost {
        ToyHost { end: End::new(self.0, seed as u32 | 1), notices: VecDeque::new() }
    }
    fn client(&mut self, _: &Scenario, seed: u64, host: SocketAddr, now: Timestamp) -> ToyClient {
        let mut end = End::new(self.0, seed as u32 | 1);
        end.peer = Some(host);
        ToyClient {
            end,
            next_hello: now,
            connected: false,
            notices: VecDeque::new(),
            partial: Vec::new(),
            whole: VecDeque::new(),
            current: None,
            damaged: BTreeSet::new(),
        }
    }
}
