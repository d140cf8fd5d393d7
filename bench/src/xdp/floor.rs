//! The same round trips and the same stream through `AF_XDP` sockets with nothing around them.
//!
//! Frames are written once; sending one is a copy into packet memory, receiving one a look at its length.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::ensure;
use wavry_netns::Namespace;
use wavry_xdp::bare::Bare;
use wavry_xdp::interface::Interface;
use wavry_xdp::load::Flow;

use super::loops::{ACKNOWLEDGE_LEN, ECHO_LEN, End, Figure, STOP_LEN, STREAM_LEN, number_of};
use super::{Lab, PORT};

const DEVICE: &str = "xdp0";
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 2);
/// Ethernet, IPv4 and UDP.
const HEADERS_LEN: usize = 42;

/// Opens both ends, measures, closes both.
pub(super) fn block(lab: &Lab, busy: bool, samples: usize, batches: usize) -> anyhow::Result<Figure> {
    let [near, far] = [mac_of(&lab.near)?, mac_of(&lab.far)?];
    lab.run(
        || Ok((Written::open([FAR, NEAR], [near, far], busy)?, ())),
        |()| Written::open([NEAR, FAR], [far, near], busy),
        samples,
        batches,
    )
}

/// A socket, and frames that were written beforehand.
struct Written {
    socket: Bare,
    stream: Vec<u8>,
    echo: Vec<u8>,
    acknowledge: Vec<u8>,
    stop: Vec<u8>,
}

impl Written {
    fn open([from, to]: [Ipv4Addr; 2], ethernet: [[u8; 6]; 2], busy: bool) -> anyhow::Result<Self> {
        let socket = Bare::open(&Interface::named(DEVICE)?, IpAddr::V4(from), PORT, busy)?;
        let [from, to] = [from, to].map(|address| SocketAddrV4::new(address, PORT));
        let frame = |len| Flow { ethernet, from, to, payload: vec![0; len], key: [0; 2] }.frame();
        Ok(Self {
            socket,
            stream: frame(STREAM_LEN),
            echo: frame(ECHO_LEN),
            acknowledge: frame(ACKNOWLEDGE_LEN),
            stop: frame(STOP_LEN),
        })
    }
}

impl End for Written {
    fn send(&mut self, len: usize, count: usize, number: u64) -> anyhow::Result<bool> {
        let frame = match len {
            STREAM_LEN => &self.stream,
            ECHO_LEN => &self.echo,
            STOP_LEN => &self.stop,
            _ => {
                self.acknowledge[HEADERS_LEN..].copy_from_slice(&number.to_be_bytes());
                &self.acknowledge
            }
        };
        for _ in 0..count {
            ensure!(self.socket.send(frame), "all places are taken");
        }
        Ok(true)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.flush()?)
    }

    fn turn(&mut self, mut on_datagram: impl FnMut(usize, u64)) -> anyhow::Result<()> {
        self.socket.flush()?;
        self.socket.wait()?;
        self.socket.receive(|frame| {
            if let Some(payload) = frame.get(HEADERS_LEN..) {
                on_datagram(payload.len(), number_of(payload));
            }
        });
        Ok(())
    }
}

fn mac_of(machine: &Namespace) -> anyhow::Result<[u8; 6]> {
    let text = machine.run("cat", &format!("/sys/class/net/{DEVICE}/address"))?;
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{DEVICE} has no Ethernet address"))
}
