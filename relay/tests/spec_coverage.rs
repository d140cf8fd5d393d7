//! Every requirement of `spec/RELAY-1.md` with a MUST is proved by a test that says so, and THREATS.md names tests that exist.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn requirements(spec: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in spec.lines() {
        if let Some((id, text)) = line.strip_prefix("* [").and_then(|rest| rest.split_once(']')) {
            assert!(found.insert(id.to_owned(), text.to_owned()).is_none(), "{id} is there twice");
            current = Some(id.to_owned());
        } else if let (Some(id), true) = (&current, line.starts_with("  ")) {
            found.get_mut(id).unwrap().push_str(line);
        } else {
            current = None;
        }
    }
    found
}

fn claims(source: &str) -> BTreeSet<String> {
    let comments = source.lines().filter_map(|line| line.trim_start().strip_prefix("///"));
    let proofs = comments.filter_map(|text| text.split_once("Proves "));
    proofs
        .flat_map(|(_, text)| text.split([' ', ',', ':', '.']))
        .filter(|word| word.starts_with("RELAY-"))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests", "../engine/rift-relay/src", "../engine/runtime/src", "../tools/wavry/tests"] {
        sources(&root.join(dir), &mut files);
    }
    files.retain(|file| !file.ends_with("spec_coverage.rs"));
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn every_must_is_proved_by_a_test_that_names_it() {
    let spec = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("spec/RELAY-1.md")).unwrap();
    let spec = requirements(&spec);
    let proved = claims(&all_sources());
    let musts: BTreeSet<_> =
        spec.iter().filter(|(_, text)| text.contains("MUST")).map(|(id, _)| id.clone()).collect();
    assert!(musts.len() > 30, "the specification was not understood");
    let missing: Vec<_> = musts.difference(&proved).collect();
    let invented: Vec<_> = proved.iter().filter(|id| !spec.contains_key(*id)).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not proved: {missing:?}; no requirement: {invented:?}"
    );
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("THREATS.md")).unwrap();
    let sources = all_sources();
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        if word.contains('_')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            assert!(sources.contains(&format!("fn {word}(")), "{word} is no test");
            named += 1;
        }
    }
    assert!(named >= 20, "{named}");
}
