//! The source and the sink of datagrams that relays are measured with, over a cable between two network namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use wavry_netns::{Namespace, cable, unavailable};
use wavry_xdp::attach::{Mode, ModeChoice, attach};
use wavry_xdp::interface::Interface;
use wavry_xdp::load::{Flood, Flow, Load, Pace, Protocol, Settings, TAG};

const SPAN: Duration = Duration::from_millis(200);

struct Net {
    from: Namespace,
    to: Namespace,
    flow: Flow,
    settings: Settings,
}

impl Net {
    fn new() -> Self {
        let (from, to) = (Namespace::new("source").unwrap(), Namespace::new("sink").unwrap());
        cable((&from, "a0"), (&to, "b0"), 1).unwrap();
        from.ip("address add 10.7.0.1/24 dev a0").unwrap();
        to.ip("address add 10.7.0.2/24 dev b0").unwrap();
        to.run("ethtool", "-K b0 gro on").unwrap();
        let mac = |namespace: &Namespace, device: &str| -> [u8; 6] {
            let text = namespace.run("cat", &format!("/sys/class/net/{device}/address")).unwrap();
            let bytes: Vec<u8> =
                text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            bytes.try_into().unwrap()
        };
        let mut payload = vec![0; 300];
        payload[36 + 8..36 + 16].copy_from_slice(&TAG);
        let flow = Flow {
            ethernet: [mac(&to, "b0"), mac(&from, "a0")],
            from: "10.7.0.1:1000".parse().unwrap(),
            to: "10.7.0.2:2000".parse().unwrap(),
            payload,
            key: [1, 2],
        };
        let settings = Settings {
            device: from.with(|| Interface::named("a0").unwrap().index()),
            protocol: Protocol::Plain,
            pace: Pace::Every(Duration::from_micros(200)),
            burst: 2,
            flows: 1,
            flow_step: 0,
            stamp_sent_at: 36,
            stamp_got_at: 36,
            flood: None,
            batch: 1,
        };
        Self { from, to, flow, settings }
    }
}

#[test]
fn what_is_sent_arrives_and_is_timed() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let net = Net::new();
    let load = Load::open().unwrap();
    load.set_flow(0, &net.flow, 0).unwrap();
    let _sink = net.to.with(|| {
        attach(load.sink(), &Interface::named("b0").unwrap(), ModeChoice::Only(Mode::Native)).unwrap()
    });
    let run = |settings: &Settings| net.from.with(|| load.run(settings, &net.flow, SPAN, || false).unwrap());
    let paced = run(&net.settings);
    assert!(paced.received > 0 && paced.received == paced.sent, "{} of {}", paced.received, paced.sent);
    let most = paced.elapsed.as_micros() as u64 / 200 * 2 + 2;
    assert!(paced.sent <= most && paced.sent.is_multiple_of(2), "{} of at most {most}", paced.sent);
    let (p50, p99) = (paced.latency_us(0.5), paced.latency_us(0.99));
    assert!(0.0 < p50 && p50 <= p99, "{p50} {p99}");

    let window = run(&Settings { pace: Pace::Window(64), burst: 1, batch: 16, ..net.settings });
    assert!(window.received > 10 * paced.received, "{}", window.received);
    assert!(window.sent - window.received <= 64, "{} of {}", window.received, window.sent);
}

/// The kernel's own stack takes them: every checksum is right, and a FORWARD is one.
#[test]
fn datagrams_are_well_formed() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut net = Net::new();
    let load = Load::open().unwrap();
    let socket = net.to.with(|| UdpSocket::bind("10.7.0.2:2000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = [0; 2048];
    // Odd values everywhere, so that sums have carries.
    for (number, byte) in net.flow.payload.iter_mut().enumerate() {
        *byte = if (20..44).contains(&number) { 0 } else { number as u8 | 0x81 };
    }
    load.set_flow(0, &net.flow, 0xff00_0000_0000_fffe).unwrap();
    let protocol = Protocol::Forward { payload_len: 264 };
    let settings = Settings { protocol, ..net.settings };
    net.from.with(|| load.run(&settings, &net.flow, SPAN, || false).unwrap());
    for sequence in 0xff00_0000_0000_fffe_u64..0xff00_0000_0001_0004 {
        let (len, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!((len, from), (300, net.flow.from.into()));
        assert_eq!(bytes[20..28], sequence.to_be_bytes());
        assert_ne!(bytes[28..36], [0; 8], "a MAC");
        assert_eq!(bytes[44..300], net.flow.payload[44..]);
    }

    // What else was paced makes room.
    socket.set_nonblocking(true).unwrap();
    while socket.recv_from(&mut bytes).is_ok() {}
    load.set_flood(&net.flow).unwrap();
    net.from.ip("link add i0 type veth peer name i1").unwrap();
    let _quick = net.from.with(|| {
        attach(load.source(), &Interface::named("i0").unwrap(), ModeChoice::Only(Mode::Generic)).unwrap()
    });
    let flood = Settings { pace: Pace::Never, flood: Some((Flood::Sessions, 1_000, 3)), ..net.settings };
    let results = net.from.with(|| load.run(&flood, &net.flow, SPAN * 4, || false).unwrap());
    assert!(results.sent == 0 && results.flood_sent > 10, "{}", results.flood_sent);
    let (mut sources, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    while let Ok((_, from)) = socket.recv_from(&mut bytes) {
        sources.insert(from.ip());
        sessions.insert(bytes[4..8].to_vec());
    }
    // The second one is the receiver's own: its kernel takes nothing from there.
    let expected = ["10.7.0.1", "10.7.0.3"].map(|ip| ip.parse().unwrap());
    assert_eq!(sources, expected.into());
    assert!(sessions.len() > 5, "{}", sessions.len());
}
