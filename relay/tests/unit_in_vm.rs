//! The unit under a real systemd: started, killed, reloaded and stopped by it, with the sandbox that the unit asks for.
//!
//! Writes to `/etc` and lays cables on the machine itself, so it runs in the virtual machine only, which says so by a file.
//! There the unit, its program at the unit's path, iproute2 and ethtool must be installed (`tools/vm`).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "others use more of it")]
mod lab;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rift_crypto::Identity;
use wavry_netns::Namespace;

use lab::{Issuing, Peer, metric, talk, wait};

/// Is there in the virtual machine.
const MARK: &str = "/etc/wavry-vm";
const CONFIG: &str = "/etc/wavry-relay.toml";
const BANNED: &str = "/etc/wavry-relay.banned";
const IDENTITY: &str = "/var/lib/wavry-relay/identity";
/// CAP_NET_ADMIN, CAP_SYS_NICE, CAP_PERFMON, CAP_BPF: what the unit's bounding set names.
const BOUND: u64 = 1 << 12 | 1 << 23 | 1 << 38 | 1 << 39;
const DRAIN: Duration = Duration::from_secs(8);

fn systemctl(arguments: &str) -> String {
    let output = Command::new("systemctl").args(arguments.split_whitespace()).output().unwrap();
    let journal = || {
        let journal =
            Command::new("journalctl").args(["-u", "wavry-relay", "--no-pager", "-n", "40"]).output();
        String::from_utf8_lossy(&journal.unwrap().stdout).into_owned()
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemctl {arguments}: {said}\n{}", journal());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn property(name: &str) -> String {
    systemctl(&format!("show wavry-relay --value -p {name}"))
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A machine with a cable to this one, which has .1 on it.
fn neighbour(label: &str, device: &str, net: u8) -> Namespace {
    let machine = Namespace::new(label).unwrap();
    ip(&format!("link add {device} type veth peer name eth0 netns {}", machine.name()));
    ip(&format!("address add 10.81.{net}.1/24 dev {device}"));
    ip(&format!("link set {device} up"));
    machine.ip(&format!("address add 10.81.{net}.2/24 dev eth0")).unwrap();
    machine.ip("link set eth0 up").unwrap();
    machine.run("ethtool", "-K eth0 gro on").unwrap();
    machine
}

/// What a line of a thread's status says, in the base that it has there.
fn status(thread: &Path, name: &str, radix: u32) -> u64 {
    let text = fs::read_to_string(thread.join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.split_whitespace().next().unwrap(), radix).unwrap()
}

/// The sandbox, as the kernel has it, of every thread.
fn is_confined(pid: &str) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut seen = 0;
    for thread in threads {
        let thread = thread.path();
        assert_ne!(status(&thread, "Uid:", 10), 0, "not root");
        assert_eq!(status(&thread, "Seccomp:", 10), 2, "a filter of system calls");
        assert_eq!(status(&thread, "NoNewPrivs:", 10), 1);
        assert_eq!(status(&thread, "CapBnd:", 16), BOUND);
        assert_eq!(status(&thread, "CapEff:", 16), 0, "everything was given up");
        assert_eq!(status(&thread, "CapPrm:", 16), 0, "for good");
        seen += 1;
    }
    assert!(seen >= 5, "forwarding, verifying, paths, metrics and main: {seen}");
}

fn shows_program() -> bool {
    ["r0", "r1"].iter().any(|device| ip(&format!("link show dev {device}")).contains("prog/xdp"))
}

/// Both peers send until both have heard.
fn goes_on(peers: &mut [Peer]) {
    peers.iter_mut().for_each(|peer| peer.got.clear());
    wait("the session goes on", || {
        for peer in peers.iter_mut() {
            peer.send(b"anybody there? A datagram as long as a challenge, or there is none.");
        }
        std::thread::sleep(Duration::from_millis(20));
        peers.iter_mut().for_each(Peer::pump);
        peers.iter().all(|peer| !peer.got.is_empty())
    });
}

/// On the fast path, in full.
fn is_carried(peers: &mut [Peer]) {
    wait("the session is on the fast path", || {
        talk(peers, 1);
        std::thread::sleep(Duration::from_millis(20));
        metric("wavry_relay_fast_sessions ") >= 1
    });
    // Above, a session of another pair may have been the one that is there.
    wait("all of it is carried", || {
        let before = metric("wavry_relay_fast_forwarded_datagrams_total ");
        talk(peers, 50);
        metric("wavry_relay_fast_forwarded_datagrams_total ") - before == 100
    });
}

#[test]
fn the_unit_runs_a_relay_in_its_sandbox() {
    if !Path::new(MARK).exists() {
        eprintln!("skipped: this is for the virtual machine (tools/vm)");
        return;
    }
    let (client, host) = (neighbour("client", "r0", 1), neighbour("host", "r1", 2));
    let places = [(&client, 1, 2), (&host, 2, 2)];
    let issuer = rift_relay::lease::IssuerKey::from_seed([77; 32]).unwrap().public();
    fs::write(
        CONFIG,
        format!(
            "issuers = [\"{issuer}\"]\nbanned = \"{BANNED}\"\ndrain_seconds = {}\nfast_path = \"xdp\"\n\
             xdp_mode = \"native\"\ninterfaces = [\"r0\", \"r1\"]\nsoft_kbps_max = 1000000\nhard_kbps_max = 1000000\n",
            DRAIN.as_secs()
        ),
    )
    .unwrap();
    systemctl("start wavry-relay");
    wait("the relay is there", || Path::new(IDENTITY).exists() && shows_program());
    let pid = property("MainPID");
    // The original is for its owner only, a user that systemd made up.
    let copy = std::env::temp_dir().join("identity");
    fs::copy(IDENTITY, &copy).unwrap();
    let issuing = Issuing::new(Identity::load_or_create(&copy).unwrap().0);
    let mut peers = issuing.pair_at(1, false, places);
    is_confined(&pid);
    is_carried(&mut peers);
    println!("the unit's relay carries a session on the fast path, confined");

    // kill -9: systemd starts it again, the peers prove themselves again.
    systemctl("kill --kill-who=main --signal=SIGKILL wavry-relay");
    wait("another one is there", || {
        property("ActiveState") == "active" && property("MainPID") != pid && shows_program()
    });
    assert_eq!(property("NRestarts"), "1");
    goes_on(&mut peers);
    is_carried(&mut peers);
    let pid = property("MainPID");
    is_confined(&pid);
    println!("killed, restarted, the session goes on");

    // A ban takes effect with a reload; who is not banned does not notice.
    let mut others = issuing.pair_at(2, false, places);
    let (_, [banned, _]) = issuing.lease(2);
    fs::write(BANNED, format!("{}\n", banned.wavry_id())).unwrap();
    systemctl("reload wavry-relay");
    wait("the banned one's session is over", || {
        talk(&mut peers, 1);
        metric("wavry_relay_sessions ") == 1
    });
    assert_eq!((property("MainPID"), property("ActiveState")), (pid, "active".to_owned()));
    others.iter_mut().for_each(|peer| peer.got.clear());
    others[0].send(b"still there?");
    is_carried(&mut peers);
    others[1].pump();
    assert!(others[1].got.is_empty());
    println!("reloaded, a session was ended and the other was not");

    // Stopping drains: the session goes on until its time is over.
    systemctl("stop --no-block wavry-relay");
    wait("it drains", || property("ActiveState") == "deactivating");
    talk(&mut peers, 20);
    assert_eq!(property("ActiveState"), "deactivating", "the session went on meanwhile");
    wait("it has ended", || property("ActiveState") == "inactive");
    assert_eq!(property("Result"), "success");
    assert!(!shows_program());
    println!("stopped, drained, nothing is left");
}
