//! The relay's program with its fast path, between machines of their own (network namespaces): what it carries, what
//! it does not, and what is left of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod lab;

use std::net::UdpSocket;
use std::time::Duration;

use lab::{Lab, Peer, talk, wait};
use libbpf_rs::query::{MapInfoIter, ProgInfoIter};
use wavry_xdp::attach::{Mode, ModeChoice, attach};
use wavry_xdp::filter::Filter;
use wavry_xdp::interface::Interface;

const XDP: &str = "fast_path = \"xdp\"\nxdp_mode = \"native\"\ninterfaces = [\"r0\", \"r1\"]";

/// Datagrams that the fast path sent on.
fn carried(lab: &Lab) -> u64 {
    lab.metric("wavry_relay_fast_forwarded_datagrams_total ")
}

/// Datagrams that userspace sent on.
fn carried_by_userspace(lab: &Lab) -> u64 {
    lab.metric("wavry_relay_forwarded_datagrams_total ")
}

fn a_stream_is_carried(lab: &Lab, is_v6: bool) {
    let mut peers = lab.pair(1 + u8::from(is_v6), is_v6);
    lab.wait_for_sessions(1 + u64::from(is_v6), &mut peers);
    let before = (carried(lab), carried_by_userspace(lab));
    talk(&mut peers, 1000);
    assert_eq!(carried(lab) - before.0, 2000);
    assert_eq!(carried_by_userspace(lab), before.1);
    assert_eq!(lab.metric("wavry_relay_fast_dropped_datagrams_total"), 0);
    assert_eq!(lab.metric("wavry_relay_fast_errors_total"), 0);
}

/// Proves RELAY-FAST-1, RELAY-FWD-1: what peers send through the fast path arrives, byte for byte, from one cable to the other.
#[test]
fn streams_take_the_fast_path() {
    let Some(lab) = Lab::new(XDP) else { return };
    a_stream_is_carried(&lab, false);
    a_stream_is_carried(&lab, true);
    assert!(lab.said().contains("\"mode\":\"native\""), "{}", lab.said());
}

#[test]
fn generic_mode_is_taken_where_native_may_lose_everything() {
    let Some(lab) = Lab::new("fast_path = \"auto\"\ninterfaces = [\"r0\", \"r1\"]") else { return };
    assert!(lab.said().contains("\"mode\":\"generic\""), "{}", lab.said());
    a_stream_is_carried(&lab, false);
    a_stream_is_carried(&lab, true);
}

#[test]
fn off_and_unnamed_leave_everything_to_userspace() {
    for (config, why) in [("fast_path = \"off\"", "it is off"), ("", "no interface is named")] {
        let Some(lab) = Lab::new(config) else { return };
        let mut peers = lab.pair(1, false);
        talk(&mut peers, 100);
        assert_eq!((carried(&lab), carried_by_userspace(&lab)), (0, 200));
        assert!(lab.said().contains(why), "{}", lab.said());
        assert!(!shows_program(&lab));
    }
}

/// A peer that got another port behind its NAT, and one that starts anew.
#[test]
fn sessions_come_back_to_the_fast_path_after_a_move() {
    let Some(lab) = Lab::new(XDP) else { return };
    let mut peers = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut peers);
    let old = peers[0].socket.local_addr().unwrap();
    peers[0].socket = lab.client.with(|| UdpSocket::bind((old.ip(), 0)).unwrap());
    peers[0].socket.set_nonblocking(true).unwrap();
    wait("the peer has moved", || {
        peers[0].send(b"from elsewhere");
        peers.iter_mut().for_each(Peer::pump);
        std::thread::sleep(Duration::from_millis(10));
        lab.metric("wavry_relay_session_events_total{event=\"moved\"}") == 1
    });
    talk(&mut peers, 20);
    lab.wait_for_sessions(1, &mut peers);
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);
    assert!(lab.metric("wavry_relay_fast_sessions_taken_back_total") >= 1);
    assert!(lab.metric("wavry_relay_fast_passed_up_datagrams_total{reason=\"address\"}") >= 1);
}

/// Proves RELAY-FAST-2: a datagram in fragments goes up, arrives, and is no replay; the session returns a second later.
#[test]
fn fragments_go_up_and_the_session_returns() {
    let Some(lab) = Lab::new(XDP) else { return };
    let mut peers = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut peers);
    talk(&mut peers, 10);
    lab.client.ip("link set c0 mtu 1000").unwrap();
    let before = (carried(&lab), carried_by_userspace(&lab));
    peers[0].send(&[7; 1200]);
    wait("the datagram is there", || {
        peers[1].pump();
        peers[1].got.last().is_some_and(|last| last == &[7; 1200])
    });
    lab.client.ip("link set c0 mtu 1500").unwrap();
    assert_eq!((carried(&lab), carried_by_userspace(&lab)), (before.0, before.1 + 1));
    talk(&mut peers, 10);
    assert_eq!(lab.metric("wavry_relay_fast_sessions_taken_back_total"), 1);
    lab.wait_for_sessions(1, &mut peers);
    for reason in ["replay", "old", "far_ahead", "mac"] {
        let labels = format!("dropped_datagrams_total{{reason=\"{reason}\"}}");
        assert_eq!(lab.metric(&format!("wavry_relay_{labels}")), 0, "{reason}");
        assert_eq!(lab.metric(&format!("wavry_relay_fast_{labels}")), 0, "{reason}");
    }
}

/// Proves RELAY-FAST-4: a map without room, a device that is gone.
#[test]
fn what_the_fast_path_cannot_carry_userspace_does() {
    let Some(lab) = Lab::new(&format!("{XDP}\nfast_path_sessions = 1")) else { return };
    let mut first = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut first);
    let mut second = lab.pair(2, true);
    talk(&mut second, 200);
    talk(&mut first, 200);
    assert_eq!(lab.metric("wavry_relay_fast_sessions "), 1);
    assert!(carried_by_userspace(&lab) >= 400 && carried(&lab) >= 400);
    assert!(lab.said().contains("map is full"), "{}", lab.said());
    assert!(lab.metric("wavry_relay_fast_errors_total") >= 1);

    // One end of a cable is pulled and laid anew: the program is on a device that is no longer there.
    lab.relay.ip("link del r1").unwrap();
    wavry_netns::cable((&lab.host, "h0"), (&lab.relay, "r1"), 1).unwrap();
    lab.relay.ip("address add 10.81.2.1/24 dev r1").unwrap();
    lab.host.ip("address add 10.81.2.2/24 dev h0").unwrap();
    lab.host.run("ethtool", "-K h0 gro on").unwrap();
    wait("userspace carries the session", || {
        first[1].send(b"anybody there?");
        first[0].send(b"yes");
        std::thread::sleep(Duration::from_millis(20));
        first.iter_mut().for_each(|peer| {
            peer.got.clear();
            peer.pump();
        });
        first.iter().all(|peer| !peer.got.is_empty())
    });
    talk(&mut first, 100);
}

/// Proves RELAY-FAST-1: both peers are on the cable that frames go back to.
#[test]
fn peers_of_one_network_are_carried() {
    let Some(lab) = Lab::new(XDP) else { return };
    lab.client.ip("address add 10.81.1.3/24 dev c0").unwrap();
    lab.client.ip("address add fd81:1::3/64 dev c0 nodad").unwrap();
    // A virtual cable delivers what is sent back on it only if its other end has a program.
    let filter = Filter::load(9, None).unwrap();
    let _attachment = lab.client.with(|| {
        attach(filter.program(), &Interface::named("c0").unwrap(), ModeChoice::Only(Mode::Native)).unwrap()
    });
    for (number, is_v6) in [(1, false), (2, true)] {
        let mut peers = lab.pair_at(number, is_v6, [(&lab.client, 1, 2), (&lab.client, 1, 3)]);
        lab.wait_for_sessions(u64::from(number), &mut peers);
        let before = carried(&lab);
        talk(&mut peers, 200);
        assert_eq!(carried(&lab) - before, 400);
    }
}

#[test]
fn changes_that_do_not_concern_a_session_leave_it_alone() {
    let Some(lab) = Lab::new(XDP) else { return };
    let mut peers = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut peers);
    for number in 0..3 {
        lab.relay.ip(&format!("link add other{number} type veth peer name far{number}")).unwrap();
        lab.relay.ip(&format!("link set other{number} up")).unwrap();
        lab.relay.ip(&format!("address add 10.99.{number}.1/24 dev other{number}")).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);
    assert_eq!(lab.metric("wavry_relay_fast_sessions_taken_back_total"), 0);

    // The neighbour has another card.
    lab.host.ip("link set h0 address 02:00:00:00:77:77").unwrap();
    lab.relay.ip("neigh replace 10.81.2.2 lladdr 02:00:00:00:77:77 dev r1").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);
    assert_eq!(lab.metric("wavry_relay_fast_sessions_taken_back_total"), 0);
}

#[test]
fn peers_behind_a_router_are_carried_and_routes_may_change() {
    let Some(lab) = Lab::new(XDP) else { return };
    let mut peers = lab.pair(1, false);
    // The host's machine becomes a router with an address of the peer behind it.
    lab.host.ip("address add 10.99.0.2/32 dev lo").unwrap();
    lab.host.ip("address add 10.81.2.3/24 dev h0").unwrap();
    lab.relay.ip("route add 10.99.0.0/24 via 10.81.2.2").unwrap();
    peers[1].socket = lab.host.with(|| UdpSocket::bind("10.99.0.2:0").unwrap());
    peers[1].socket.set_nonblocking(true).unwrap();
    wait("the peer has moved", || {
        peers[1].send(b"from behind a router, and as long as a challenge or longer");
        peers.iter_mut().for_each(Peer::pump);
        std::thread::sleep(Duration::from_millis(10));
        lab.metric("wavry_relay_session_events_total{event=\"moved\"}") == 1
    });
    lab.wait_for_sessions(1, &mut peers);
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);

    // Another next hop, which nobody has spoken to yet: userspace carries the session until the kernel knows it.
    let taken_back = lab.metric("wavry_relay_fast_sessions_taken_back_total");
    lab.relay.ip("route replace 10.99.0.0/24 via 10.81.2.3").unwrap();
    wait("the session is taken back", || {
        talk(&mut peers, 1);
        lab.metric("wavry_relay_fast_sessions_taken_back_total") > taken_back
    });
    lab.wait_for_sessions(1, &mut peers);
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);
}

/// Peers in VLANs, whose tagged frames the program sees at the devices below.
#[test]
fn peers_in_a_vlan_are_carried() {
    let Some(lab) = Lab::new(XDP) else { return };
    if let Err(error) = lab.client.ip("link add link c0 name probe type vlan id 9") {
        eprintln!("skipped: the kernel has no VLAN devices (CONFIG_VLAN_8021Q): {error}");
        return;
    }
    // The card would take tags off and put them on behind the program's back.
    for (machine, device) in [(&lab.client, "c0"), (&lab.host, "h0"), (&lab.relay, "r0"), (&lab.relay, "r1")]
    {
        machine.run("ethtool", &format!("-K {device} rxvlan off txvlan off")).unwrap();
    }
    for (machine, device, relay_device, net) in [(&lab.client, "c0", "r0", 3), (&lab.host, "h0", "r1", 4)] {
        for (machine, device, end) in [(machine, device, 2), (&lab.relay, relay_device, 1)] {
            machine.ip(&format!("link add link {device} name {device}.100 type vlan id 100")).unwrap();
            machine.ip(&format!("address add 10.81.{net}.{end}/24 dev {device}.100")).unwrap();
            machine.ip(&format!("address add fd81:{net}::{end}/64 dev {device}.100 nodad")).unwrap();
            machine.ip(&format!("link set {device}.100 up")).unwrap();
        }
    }
    for (is_v6, number) in [(false, 1), (true, 2)] {
        let mut peers = lab.pair_at(number, is_v6, [(&lab.client, 3, 2), (&lab.host, 4, 2)]);
        lab.wait_for_sessions(number.into(), &mut peers);
        let before = (carried(&lab), carried_by_userspace(&lab));
        talk(&mut peers, 300);
        assert_eq!((carried(&lab) - before.0, carried_by_userspace(&lab)), (600, before.1));
    }
    // One tag is not the other: between a peer with a tag and one without, userspace carries.
    let mut peers = lab.pair_at(3, false, [(&lab.client, 3, 2), (&lab.host, 2, 2)]);
    let before = (carried(&lab), carried_by_userspace(&lab));
    talk(&mut peers, 50);
    assert_eq!((carried(&lab), carried_by_userspace(&lab) - before.1), (before.0, 100));
}

#[test]
fn the_unit_has_all_the_capabilities_that_are_needed() {
    let unit = include_str!("../systemd/wavry-relay.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    assert_eq!(line, "CAP_SYS_NICE CAP_NET_ADMIN CAP_BPF CAP_PERFMON");
    let capabilities = ",+sys_nice,+net_admin,+bpf,+perfmon";
    let Some(lab) = Lab::as_nobody(XDP, capabilities) else { return };
    a_stream_is_carried(&lab, false);
    // And says what is missing without.
    let Some(lab) = Lab::as_nobody(&XDP.replace("xdp\"", "auto\""), ",+sys_nice") else { return };
    let mut peers = lab.pair(1, false);
    talk(&mut peers, 10);
    assert!(lab.said().contains("CAP_BPF and CAP_NET_ADMIN are needed, and CAP_PERFMON"), "{}", lab.said());
}

fn shows_program(lab: &Lab) -> bool {
    ["r0", "r1"]
        .iter()
        .any(|device| lab.relay.ip(&format!("link show dev {device}")).unwrap().contains("prog/xdp"))
}

/// Number of the program on a device.
fn program_id(lab: &Lab) -> u32 {
    let text = lab.relay.ip("link show dev r0").unwrap();
    text.split("prog/xdp id ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Proves RELAY-FAST-5: kill -9 leaves no program, no link, no map; sessions go on with the next relay.
#[test]
fn a_killed_relay_leaves_nothing_and_a_new_one_goes_on() {
    // So that its maps are told from those of other tests.
    let sessions = 1237;
    let Some(mut lab) = Lab::new(&format!("{XDP}\nsessions = {sessions}")) else { return };
    let maps = || MapInfoIter::default().filter(|map| map.max_entries == sessions).count();
    let mut peers = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut peers);
    let id = program_id(&lab);
    assert_eq!(maps(), 1);
    assert!(ProgInfoIter::default().any(|program| program.id == id));

    // SIGKILL: no code of the process runs after this.
    let mut process = lab.process.take().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    wait("the kernel has cleaned up", || {
        !shows_program(&lab) && maps() == 0 && !ProgInfoIter::default().any(|program| program.id == id)
    });

    lab.start_relay();
    wait("the peers presented again", || {
        for peer in &mut peers {
            peer.send(b"anybody there? A datagram as long as a challenge, or there is none.");
            peer.got.clear();
        }
        std::thread::sleep(Duration::from_millis(20));
        peers.iter_mut().for_each(Peer::pump);
        peers.iter().all(|peer| !peer.got.is_empty())
    });
    lab.wait_for_sessions(1, &mut peers);
    let before = carried(&lab);
    talk(&mut peers, 100);
    assert_eq!(carried(&lab) - before, 200);
}

#[test]
fn what_only_the_start_needs_is_given_up() {
    let Some(lab) = Lab::new(XDP) else { return };
    let mut peers = lab.pair(1, false);
    lab.wait_for_sessions(1, &mut peers);
    let pid = lab.process.as_ref().unwrap().id();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut seen = 0;
    for thread in threads.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
        let effective = u64::from_str_radix(&line, 16).unwrap();
        // CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF.
        for capability in [12, 21, 38, 39] {
            assert_eq!(effective >> capability & 1, 0, "{status}");
        }
        seen += 1;
    }
    assert!(seen >= 4, "forwarding, verifying, paths and main");
    talk(&mut peers, 50);
}

/// The default address of the metrics is on the loopback device, which a bare container or early boot has down.
#[test]
fn a_loopback_device_that_is_down_is_named() {
    if let Some(reason) = wavry_netns::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let machine = wavry_netns::Namespace::new("bare").unwrap();
    machine.ip("link set lo down").unwrap();
    let place = std::env::temp_dir().join(format!("wavry-relay-bare-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let issuer = rift_relay::lease::IssuerKey::from_seed([77; 32]).unwrap().public();
    let config =
        format!("listen = \"[::]:4820\"\nissuers = [\"{issuer}\"]\nidentity = {:?}", place.join("identity"));
    std::fs::write(place.join("relay.toml"), config).unwrap();
    let mut command = machine.command(env!("CARGO_BIN_EXE_wavry-relay"));
    let output = command.arg("--config").arg(place.join("relay.toml")).output().unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("ip link set lo up"), "{said}");
}
