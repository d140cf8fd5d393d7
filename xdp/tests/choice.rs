//! Which transport is taken, and what is said when it cannot be.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use support::{Lan, skip};
use wavry_runtime::uring::UringUdpConfig;
use wavry_xdp::choice::{AnyTransport, TransportChoice, TransportConfig, TransportError, open};

fn config(choice: TransportChoice, interface: Option<&str>) -> TransportConfig {
    TransportConfig {
        choice,
        interface: interface.map(str::to_owned),
        toward: None,
        udp: UringUdpConfig::new("[::]:0".parse().unwrap()),
    }
}

#[test]
fn auto_takes_af_xdp_only_where_it_is_named_and_works() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        use TransportChoice::{AfXdp, Auto, IoUring};
        let is_xdp =
            |choice, interface| matches!(open(&config(choice, interface)).unwrap(), AnyTransport::AfXdp(_));
        assert!(!is_xdp(Auto, None));
        assert!(is_xdp(Auto, Some("l0")));
        assert!(!is_xdp(Auto, Some("lo")));
        assert!(!is_xdp(IoUring, Some("l0")));
        assert!(is_xdp(AfXdp, Some("l0")));
        // Busy: somebody else's program.
        let _other = open(&config(AfXdp, Some("l0"))).unwrap();
        assert!(!is_xdp(Auto, Some("l0")));
    });
}

#[test]
fn the_device_is_found_by_the_route() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        let toward = |peer: Option<&str>| {
            let config = TransportConfig {
                toward: peer.map(|peer| peer.parse().unwrap()),
                ..config(TransportChoice::AfXdp, None)
            };
            open(&config).map(|transport| match transport {
                AnyTransport::AfXdp(xdp) => xdp.summary().interface.clone(),
                AnyTransport::IoUring(_) => panic!("not what was asked for"),
            })
        };
        assert_eq!(toward(Some("10.77.0.2")).unwrap(), "l0");
        assert_eq!(toward(Some("fd77::2")).unwrap(), "l0");
        let error = toward(None).unwrap_err();
        assert!(error.to_string().contains("no default route: name one with --interface"), "{error}");
        assert!(matches!(toward(Some("127.0.0.1")).unwrap_err(), TransportError::NoDevice(_)));
        lan.left.ip("route add default via 10.77.0.2").unwrap();
        assert_eq!(toward(None).unwrap(), "l0");
    });
}

#[test]
fn mistakes_are_not_papered_over() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        let error = open(&config(TransportChoice::Auto, Some("eth77"))).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("there is no network interface eth77"), "{cause}");
        let held = open(&config(TransportChoice::IoUring, None)).unwrap();
        let bind = wavry_runtime::transport::Transport::local_addr(&held);
        let taken =
            TransportConfig { udp: UringUdpConfig::new(bind), ..config(TransportChoice::Auto, Some("l0")) };
        let error = open(&taken).unwrap_err();
        assert!(error.to_string().contains("is already in use"), "{error}");
    });
}
