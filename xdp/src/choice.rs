//! Which transport a program uses: `io_uring` UDP, or `AF_XDP` over it.
//!
//! Owns the choice and the line in the log that says why. Never changes its mind later. Invariant: `auto` takes
//! `AF_XDP` only where the operator named the device and everything about it works natively; a choice that was
//! made explicitly is kept or refused, never replaced.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use wavry_runtime::Waker;
use wavry_runtime::counters::Counters;
use wavry_runtime::transport::{Received, SendError, Transmit, Transport, Turn, TxSlot};
use wavry_runtime::uring::{OpenError, UringUdp, UringUdpConfig};

use crate::attach::{Mode, ModeChoice};
use crate::interface::{Interface, NoInterface};
use crate::netlink::Netlink;
use crate::udp::{XdpError, XdpUdp, XdpUdpConfig};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// `AF_XDP` if a device was named and it works there in native mode; `io_uring` otherwise.
    #[default]
    Auto,
    /// The kernel's UDP.
    IoUring,
    /// `AF_XDP`, also in generic mode.
    AfXdp,
}

impl FromStr for TransportChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "io-uring" => Ok(Self::IoUring),
            "af-xdp" => Ok(Self::AfXdp),
            _ => Err("known transports: auto, io-uring, af-xdp".to_owned()),
        }
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::IoUring => "io-uring",
            Self::AfXdp => "af-xdp",
        })
    }
}

/// What [`open`] needs to know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Which transport.
    pub choice: TransportChoice,
    /// The device for `AF_XDP`, by name. `None`: the one that the route to `toward` leaves by.
    pub interface: Option<String>,
    /// The peer, if there is only one. `None`: the default route's device is taken.
    pub toward: Option<IpAddr>,
    /// Address, port and sizes, for both.
    pub udp: UringUdpConfig,
}

/// No transport could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// `io_uring` UDP could not be opened.
    #[error(transparent)]
    Udp(#[from] OpenError),
    /// `AF_XDP` was asked for and could not be had.
    #[error("the transport af-xdp cannot be used (--transport io-uring needs no privileges)")]
    Xdp(#[from] XdpError),
    /// `AF_XDP` was asked for, but it is not known on which device.
    #[error("the transport af-xdp needs a network interface, and {0}: name one with --interface")]
    NoDevice(String),
}

/// Either transport.
// One per network thread, and never moved once it runs: the difference in size costs nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum AnyTransport {
    /// The kernel's UDP.
    IoUring(UringUdp),
    /// `AF_XDP` over it.
    AfXdp(Box<XdpUdp>),
}

/// Opens the transport that was chosen, on the thread that will turn it, and logs which and why.
///
/// # Errors
///
/// [`TransportError`] says what is in the way and what to do about it.
pub fn open(config: &TransportConfig) -> Result<AnyTransport, TransportError> {
    match config.choice {
        TransportChoice::IoUring => uring(config, "as asked"),
        TransportChoice::AfXdp => {
            let interface = match &config.interface {
                Some(name) => Interface::named(name).map_err(XdpError::from)?,
                None => interface_toward(config.toward).map_err(TransportError::NoDevice)?,
            };
            let xdp = xdp(config, interface, ModeChoice::Auto)?;
            tracing::info!("transport: {}, as asked", xdp.summary());
            Ok(AnyTransport::AfXdp(Box::new(xdp)))
        }
        TransportChoice::Auto => match &config.interface {
            None => uring(config, "AF_XDP is used only on an interface named with --interface"),
            Some(name) => match Interface::named(name).map_err(XdpError::from).and_then(|interface| {
                // Generic mode gains nothing over io_uring.
                xdp(config, interface, ModeChoice::Only(Mode::Native))
            }) {
                Ok(xdp) => {
                    tracing::info!("transport: {}, because it works on the interface named", xdp.summary());
                    Ok(AnyTransport::AfXdp(Box::new(xdp)))
                }
                // A port in use is no reason to take another transport on it, and a wrong name is a mistake.
                Err(XdpError::Udp(error)) => Err(error.into()),
                Err(error @ XdpError::NoInterface(NoInterface { .. })) => Err(error.into()),
                Err(error) => uring(config, &format!("AF_XDP cannot be used: {error}")),
            },
        },
    }
}

fn uring(config: &TransportConfig, why: &str) -> Result<AnyTransport, TransportError> {
    let udp = UringUdp::open(config.udp)?;
    tracing::info!("transport: io_uring; {why}");
    Ok(AnyTransport::IoUring(udp))
}

fn xdp(config: &TransportConfig, interface: Interface, mode: ModeChoice) -> Result<XdpUdp, XdpError> {
    XdpUdp::open(&XdpUdpConfig { udp: config.udp, interface, vlan: None, mode })
}

/// The device that the route to a peer leaves by, or the default route's.
pub(crate) fn interface_toward(peer: Option<IpAddr>) -> Result<Interface, String> {
    // Addresses of documentation (RFC 5737, RFC 3849): nobody has them, so they take the default route.
    let anywhere =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let candidates = peer.as_ref().map_or(&anywhere[..], std::slice::from_ref);
    let mut netlink =
        Netlink::open().map_err(|error| format!("the kernel's routes cannot be asked for ({error})"))?;
    for &to in candidates {
        if let Ok(Some(route)) = netlink.route(to, None, None) {
            return Interface::with_index(route.device).map_err(|error| error.to_string());
        }
    }
    Err(match peer {
        Some(peer) => format!("no route to {peer} leaves this machine"),
        None => "this machine has no default route".to_owned(),
    })
}

/// Hands a call on to whichever it is.
macro_rules! either {
    ($self:ident, $transport:ident => $call:expr) => {
        match $self {
            AnyTransport::IoUring($transport) => $call,
            AnyTransport::AfXdp($transport) => $call,
        }
    };
}

impl Transport for AnyTransport {
    fn local_addr(&self) -> SocketAddr {
        either!(self, transport => transport.local_addr())
    }

    fn waker(&self) -> Waker {
        either!(self, transport => transport.waker())
    }

    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn> {
        either!(self, transport => transport.turn(deadline_ns))
    }

    #[inline]
    fn poll_receive(&mut self) -> Option<Received<'_>> {
        either!(self, transport => transport.poll_receive())
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxSlot> {
        either!(self, transport => transport.acquire())
    }

    #[inline]
    fn commit(&mut self, slot: TxSlot, tx: Transmit) {
        either!(self, transport => transport.commit(slot, tx));
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, transport => transport.flush())
    }

    fn poll_send_error(&mut self) -> Option<SendError> {
        either!(self, transport => transport.poll_send_error())
    }

    fn counters(&self) -> &Counters {
        either!(self, transport => transport.counters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_shown() {
        for choice in [TransportChoice::Auto, TransportChoice::IoUring, TransportChoice::AfXdp] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("xdp".parse::<TransportChoice>().is_err());
    }
}
