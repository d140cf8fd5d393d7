//! Files: what is refused and in which words, what survives an edit, and that two programs at once do
//! no harm.

#![allow(clippy::unwrap_used)] // helper functions here are test code too

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rift_crypto::{
    AllowList, AllowedPeer, Created, Identity, IdentityError, KnownHost, KnownHosts, ListError,
    MAX_LIST_BYTES, WavryId,
};

/// A directory of one test's own, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let name = format!("rift-crypto-test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What lies in the directory: proof that nothing was left behind.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn id(byte: u8) -> WavryId {
    WavryId([byte; 32])
}

// --- Identity -------------------------------------------------------------------------------

#[test]
fn identity_is_created_private_and_loaded_again() {
    let dir = Dir::new();
    let path = dir.file("new/config/identity");
    let (first, created) = Identity::load_or_create(&path).unwrap();
    assert_eq!(created, Created::New);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&dir.file("new/config")), 0o700);
    assert_eq!(mode(&dir.file("new")), 0o700);
    assert_eq!(fs::read(&path).unwrap().len(), 32);
    assert_eq!(fs::read_dir(dir.file("new/config")).unwrap().count(), 1, "no temporary file is left");

    let (second, created) = Identity::load_or_create(&path).unwrap();
    assert_eq!((created, second.wavry_id()), (Created::Existing, first.wavry_id()));
    let loaded = Identity::load(&path).unwrap();
    assert_eq!((loaded.wavry_id(), loaded.static_public()), (first.wavry_id(), first.static_public()));
}

#[test]
fn identity_file_is_the_seed() {
    let dir = Dir::new();
    let path = dir.file("identity");
    fs::write(&path, [1; 32]).unwrap();
    set_mode(&path, 0o400);
    assert_eq!(Identity::load(&path).unwrap().wavry_id(), Identity::from_seed([1; 32]).unwrap().wavry_id());
}

#[test]
fn identity_others_can_reach_is_refused_with_the_remedy() {
    let dir = Dir::new();
    let path = dir.file("identity");
    Identity::load_or_create(&path).unwrap();
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777] {
        set_mode(&path, bits);
        for result in [Identity::load(&path), Identity::load_or_create(&path).map(|(identity, _)| identity)] {
            let error = result.unwrap_err();
            assert!(matches!(error, IdentityError::TooOpen { mode, .. } if mode == bits), "{bits:o} {error}");
            let text = error.to_string();
            assert!(text.contains(&format!("{bits:04o}")) && text.contains("chmod 600"), "{text}");
        }
    }
    set_mode(&path, 0o600);
    assert!(Identity::load(&path).is_ok());
}

#[test]
fn identity_of_wrong_length_is_refused_and_kept() {
    let dir = Dir::new();
    let path = dir.file("identity");
    for len in [0, 31, 33, 5000] {
        fs::write(&path, vec![7; len]).unwrap();
        set_mode(&path, 0o600);
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::WrongLength { len: found, .. } if found == len as u64),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap().len(), len, "a damaged identity is not overwritten");
    }
}

#[test]
fn identity_of_another_user_is_refused() {
    if !is_root() {
        return; // only root can give a file away
    }
    let dir = Dir::new();
    let path = dir.file("identity");
    Identity::load_or_create(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    let error = Identity::load(&path).unwrap_err();
    assert!(matches!(error, IdentityError::WrongOwner { owner: 12345, user: 0, .. }), "{error}");
}

#[test]
fn identity_path_that_is_no_file_is_refused() {
    let dir = Dir::new();
    assert!(matches!(Identity::load(&dir.0).unwrap_err(), IdentityError::NotAFile { .. }));
    assert!(matches!(Identity::load(&dir.file("none")).unwrap_err(), IdentityError::Missing { .. }));
    fs::write(dir.file("file"), "").unwrap();
    let error = Identity::load_or_create(&dir.file("file/identity")).unwrap_err();
    assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
}

#[test]
fn identity_that_cannot_be_written_says_so() {
    let error = Identity::load_or_create(Path::new("/proc/wavry/identity")).unwrap_err();
    assert!(matches!(error, IdentityError::Unwritable { .. }), "{error}");
}

#[test]
fn programs_that_create_the_identity_at_once_end_up_with_the_same() {
    let dir = Dir::new();
    let path = dir.file("identity");
    let barrier = std::sync::Barrier::new(8);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (identity, created) = Identity::load_or_create(&path).unwrap();
                    (identity.wavry_id(), created)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|(id, _)| *id == results[0].0));
    assert_eq!(results.iter().filter(|(_, created)| *created == Created::New).count(), 1);
    assert_eq!(dir.names(), ["identity"]);
}

// --- Allow-list -----------------------------------------------------------------------------

#[test]
fn missing_allow_list_allows_nobody_and_is_created_private() {
    let dir = Dir::new();
    let path = dir.file("config/allowed");
    let mut list = AllowList::load(&path).unwrap();
    assert!(list.peers().is_empty() && !list.contains(&id(1)));
    assert!(list.add(id(1), "Anna's laptop").unwrap());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{} Anna's laptop\n", id(1)));
    assert!(list.contains(&id(1)) && !list.contains(&id(2)));
    assert_eq!(
        AllowList::load(&path).unwrap().peers(),
        [AllowedPeer { id: id(1), name: "Anna's laptop".into() }]
    );
}

#[test]
fn comments_and_foreign_lines_survive_an_addition() {
    let dir = Dir::new();
    let path = dir.file("allowed");
    let before = format!("# the family\r\n\n{}\tAnna \nwhat is this\n  # indented\n\u{fffd}", id(1));
    fs::write(&path, &before).unwrap();
    set_mode(&path, 0o640);
    let mut list = AllowList::load(&path).unwrap();
    assert!(list.add(id(2), "").unwrap());
    assert!(!list.add(id(1), "again").unwrap(), "already allowed");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{before}\n{}\n", id(2)));
    assert_eq!(mode(&path), 0o640);
    assert_eq!(list.peers()[0].name, "Anna");
    assert_eq!(dir.names(), ["allowed"]);
}

#[test]
fn bad_lines_are_named_by_number_and_allow_nobody() {
    let text = format!("# ok\n{}\nshort Anna\n\n{}x Bob\n", id(1), id(2));
    let (peers, bad_lines) = AllowList::parse(&[text.as_bytes(), b"\xff\xfe\n"].concat());
    assert_eq!(peers.len(), 1);
    assert_eq!(bad_lines.iter().map(|line| line.number).collect::<Vec<_>>(), [3, 5, 6]);
    assert_eq!(bad_lines[0].to_string(), "line 3: does not start with a Wavry ID (43 characters)");
    assert_eq!(bad_lines[2].reason, "not UTF-8 text");
}

#[test]
fn name_from_a_peer_cannot_add_lines_or_hide_text() {
    let dir = Dir::new();
    let path = dir.file("allowed");
    let mut list = AllowList::load(&path).unwrap();
    let hostile = format!("Anna\n{} Eve\r\n\u{1b}[2J\u{202e}txt\u{2028}", id(66));
    list.add(id(1), &hostile).unwrap();
    assert_eq!(list.peers().len(), 1);
    assert!(!list.contains(&id(66)));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{2028}', '\r']));
    list.add(id(2), &"x".repeat(10_000)).unwrap();
    assert_eq!(list.peers()[1].name.len(), 64);
}

#[test]
fn edits_of_others_are_seen_on_reload_and_kept_on_addition() {
    let dir = Dir::new();
    let path = dir.file("allowed");
    let mut list = AllowList::load(&path).unwrap();
    assert!(!list.reload_if_changed().unwrap());
    fs::write(&path, format!("{}\n", id(1))).unwrap();
    set_mode(&path, 0o600);
    assert!(list.reload_if_changed().unwrap());
    assert!(list.contains(&id(1)));
    assert!(!list.reload_if_changed().unwrap());

    let mut other = AllowList::load(&path).unwrap();
    other.add(id(2), "").unwrap();
    list.add(id(3), "").unwrap();
    assert_eq!(list.peers().iter().map(|peer| peer.id).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert!(!list.reload_if_changed().unwrap(), "its own change is no news");
    assert!(other.reload_if_changed().unwrap());

    fs::remove_file(&path).unwrap();
    assert!(list.reload_if_changed().unwrap());
    assert!(list.peers().is_empty(), "no file allows nobody");
}

#[test]
fn additions_of_two_programs_at_once_are_all_kept() {
    let dir = Dir::new();
    let path = dir.file("allowed");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut list = AllowList::load(path).unwrap();
                for index in 0..5 {
                    list.add(id(thread * 5 + index), "").unwrap();
                }
            });
        }
    });
    assert_eq!(AllowList::load(&path).unwrap().peers().len(), 20);
}

#[test]
fn allow_list_that_others_can_write_is_refused_and_the_old_entries_stay() {
    let dir = Dir::new();
    let path = dir.file("allowed");
    let mut list = AllowList::load(&path).unwrap();
    list.add(id(1), "").unwrap();
    fs::write(&path, format!("{}\n", id(66))).unwrap();
    for bits in [0o620, 0o602, 0o666] {
        set_mode(&path, bits);
        let error = list.reload_if_changed().unwrap_err();
        assert!(matches!(error, ListError::TooOpen { mode, .. } if mode == bits), "{error}");
        assert!(error.to_string().contains("chmod go-w"));
        assert!(matches!(list.add(id(2), ""), Err(ListError::TooOpen { .. })));
        assert!(matches!(AllowList::load(&path), Err(ListError::TooOpen { .. })));
    }
    assert!(list.contains(&id(1)) && !list.contains(&id(66)));
    if is_root() {
        set_mode(&path, 0o600);
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert!(matches!(AllowList::load(&path), Err(ListError::WrongOwner { owner: 12345, .. })));
    }
}

#[test]
fn allow_list_that_is_no_file_or_endless_is_refused() {
    let dir = Dir::new();
    assert!(matches!(AllowList::load(&dir.0), Err(ListError::NotAFile { .. })));
    let path = dir.file("allowed");
    fs::write(&path, vec![b'#'; MAX_LIST_BYTES as usize + 1]).unwrap();
    set_mode(&path, 0o600);
    assert!(matches!(AllowList::load(&path), Err(ListError::TooLong { .. })));
    fs::write(&path, vec![b'#'; MAX_LIST_BYTES as usize]).unwrap();
    let mut list = AllowList::load(&path).unwrap();
    assert!(matches!(list.add(id(1), ""), Err(ListError::TooLong { .. })));
}

#[test]
fn list_behind_a_symbolic_link_is_changed_where_it_lies() {
    let dir = Dir::new();
    let (target, link) = (dir.file("target"), dir.file("link"));
    fs::write(&target, "# shared\n").unwrap();
    set_mode(&target, 0o600);
    symlink(&target, &link).unwrap();
    AllowList::load(&link).unwrap().add(id(1), "").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), format!("# shared\n{}\n", id(1)));
}

// --- Known hosts ----------------------------------------------------------------------------

fn known(name: &str, byte: u8, label: &str) -> KnownHost {
    KnownHost { name: name.into(), id: id(byte), static_public: [byte + 100; 32], label: label.into() }
}

#[test]
fn known_hosts_are_found_by_name_and_by_identity() {
    let dir = Dir::new();
    let path = dir.file("known_hosts");
    let mut hosts = KnownHosts::load(&path).unwrap();
    let (desk, tv) = (known("192.0.2.7:4810", 1, "Desk PC"), known("tv.local", 2, ""));
    assert!(hosts.remember(&desk).unwrap());
    assert!(hosts.remember(&tv).unwrap());
    assert!(!hosts.remember(&tv).unwrap(), "nothing new");
    let hosts = KnownHosts::load(&path).unwrap();
    assert_eq!(hosts.find("192.0.2.7:4810"), Some(&desk));
    assert_eq!(hosts.find_id(&id(2)), Some(&tv));
    assert_eq!((hosts.find("192.0.2.7"), hosts.find_id(&id(3))), (None, None));
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn remembering_a_name_again_replaces_its_line_only() {
    let dir = Dir::new();
    let path = dir.file("known_hosts");
    let mut hosts = KnownHosts::load(&path).unwrap();
    hosts.remember(&known("desk", 1, "old")).unwrap();
    hosts.remember(&known("tv", 2, "")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("# mine\n{text}# end")).unwrap();
    hosts.remember(&known("desk", 3, "new")).unwrap();
    let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!((&lines[0][..], &lines[3][..]), ("# mine", "# end"));
    assert!(lines[1].starts_with("desk ") && lines[1].ends_with(" new"));
    assert_eq!(hosts.find("desk"), Some(&known("desk", 3, "new")));
    assert_eq!(hosts.find("tv"), Some(&known("tv", 2, "")));
}

#[test]
fn host_names_that_would_break_the_line_are_refused() {
    let dir = Dir::new();
    let mut hosts = KnownHosts::load(&dir.file("known_hosts")).unwrap();
    for name in ["", "two words", "#tv", "tv\nevil", "tv\u{2028}", "\u{7f}"] {
        assert!(matches!(hosts.remember(&known(name, 1, "")), Err(ListError::BadName)), "{name:?}");
    }
    assert!(dir.names().is_empty());
}

#[test]
fn bad_known_host_lines_say_which_word_is_wrong() {
    let key = id(9);
    let text = format!("tv\ntv {key}\ntv {key} short\ntv {key} {key}\ntv {key} {key} My TV\n");
    let (hosts, bad_lines) = KnownHosts::parse(text.as_bytes());
    assert_eq!(hosts.len(), 2);
    assert_eq!(hosts[1].label, "My TV");
    assert_eq!(bad_lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(bad_lines[0].reason.starts_with("the second word"));
    assert!(bad_lines[1].reason.starts_with("the third word"));
}

// --- Both -----------------------------------------------------------------------------------

fn list_bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        any::<[u8; 32]>().prop_map(|key| WavryId(key).to_string()),
        any::<[u8; 32]>().prop_map(|key| format!("h {} {} x", WavryId(key), WavryId(key))),
        "[ -~]{0,60}",
        ".{0,20}",
    ];
    prop_oneof![
        proptest::collection::vec(line, 0..10).prop_map(|lines| lines.join("\n").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn any_bytes_parse_as_lists_without_panic(bytes in list_bytes()) {
        let lines = bytes.split(|&byte| byte == b'\n').count();
        let (peers, bad) = AllowList::parse(&bytes);
        prop_assert!(peers.len() + bad.len() <= lines);
        prop_assert!(bad.iter().all(|line| (1..=lines).contains(&line.number)));
        let (hosts, bad) = KnownHosts::parse(&bytes);
        prop_assert!(hosts.len() + bad.len() <= lines);
    }

}

proptest! {
    // Each case writes and syncs two files.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn written_entries_read_back(key: [u8; 32], other: [u8; 32], name in "[!-~]{1,30}", label in ".{0,90}") {
        prop_assume!(!name.starts_with('#'));
        let dir = Dir::new();
        let mut hosts = KnownHosts::load(&dir.file("hosts")).unwrap();
        let host = KnownHost { name: name.clone(), id: WavryId(key), static_public: other, label };
        hosts.remember(&host).unwrap();
        let read = hosts.find(&name).unwrap().clone();
        prop_assert_eq!((read.id, read.static_public), (WavryId(key), other));
        prop_assert_eq!(hosts.hosts().len(), 1);
        prop_assert!(hosts.bad_lines().is_empty());
        prop_assert!(!hosts.remember(&host).unwrap(), "writing the same again changes nothing");
        let mut list = AllowList::load(&dir.file("allowed")).unwrap();
        list.add(WavryId(key), &host.label).unwrap();
        prop_assert_eq!(&list.peers()[0].name, &read.label);
    }
}
