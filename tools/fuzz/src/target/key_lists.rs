//! The two files that people edit.

use rift_crypto::{AllowList, KnownHosts, WavryId};

pub(super) fn run(data: &[u8]) {
    let lines = data.split(|&b| b == b'\n').count();
    let (peers, bad) = AllowList::parse(data);
    assert!(peers.len() + bad.len() <= lines);
    for peer in &peers {
        assert_eq!(peer.id.to_string().parse::<WavryId>().ok(), Some(peer.id));
        let (again, bad) = AllowList::parse(format!("{} {}", peer.id, peer.name).as_bytes());
        assert!(bad.is_empty() && again.len() == 1 && again[0].id == peer.id, "{peer:?} became {again:?}");
    }
    let (hosts, bad) = KnownHosts::parse(data);
    assert!(hosts.len() + bad.len() <= lines);
    for host in &hosts {
        assert!(!host.name.is_empty() && !host.name.starts_with('#'), "{host:?}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let id = WavryId([7; 32]);
    vec![
        format!("# who may connect\n\n{id} Anna's laptop\n{id}\nnonsense\n").into_bytes(),
        format!("192.0.2.7:4810 {id} {id} Living room\r\n[2001:db8::1]:4810 {id} short\n").into_bytes(),
    ]
}
