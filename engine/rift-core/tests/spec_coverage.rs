//! Every requirement of `spec/RIFT-1.md` with a MUST is proved by a test that says so.
//!
//! A test claims requirements in a comment: `Proves R-WIRE-1, R-WIRE-2`. `spec/uncovered.txt` lists the
//! requirements that no test proves yet; it can only shrink: a listed id that is proved, or that is no
//! requirement, fails as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const CLAIM: &str = "Proves ";

/// The requirements in `spec`, each with its text.
fn requirements(spec: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in spec.lines() {
        if let Some((id, text)) = line.strip_prefix("* [R-").and_then(|rest| rest.split_once(']')) {
            let id = format!("R-{id}");
            assert!(found.insert(id.clone(), text.to_owned()).is_none(), "{id} is there twice");
            current = Some(id);
        } else if line.starts_with("  ") {
            if let Some(text) = current.as_ref().and_then(|id| found.get_mut(id)) {
                text.push(' ');
                text.push_str(line.trim());
            }
        } else {
            current = None;
        }
    }
    found
}

/// The ids that comments in `source` claim to prove. A claim may go on over several comment lines, as
/// long as each ends with a comma.
fn claims(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut goes_on = false;
    for line in source.lines() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            goes_on = false;
            continue;
        };
        let text = match comment.find(CLAIM) {
            Some(at) => &comment[at + CLAIM.len()..],
            None if goes_on => comment.trim_start_matches(['/', '!', ' ']),
            None => continue,
        };
        for word in text.split([' ', ',', ';', ':', '(', ')']) {
            let id = word.trim_end_matches('.');
            let is_id =
                id.strip_prefix("R-").and_then(|rest| rest.split_once('-')).is_some_and(|(area, n)| {
                    area.chars().all(|c| c.is_ascii_uppercase()) && n.parse::<u32>().is_ok()
                });
            if is_id {
                found.insert(id.to_owned());
            }
        }
        goes_on = text.trim_end().ends_with(',');
    }
    found
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "spec_coverage.rs")
        {
            into.push(path);
        }
    }
}

#[test]
fn every_must_is_proved_by_a_test_that_names_it() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = requirements(&fs::read_to_string(core.join("spec/RIFT-1.md")).unwrap());
    let musts: BTreeSet<_> =
        spec.iter().filter(|(_, text)| text.contains("MUST")).map(|(id, _)| id).collect();
    assert!(musts.len() > 50, "the specification was not understood");

    let mut files = Vec::new();
    rust_files(core.parent().unwrap(), &mut files);
    let mut proved = BTreeMap::<String, PathBuf>::new();
    for file in files {
        for id in claims(&fs::read_to_string(&file).unwrap()) {
            proved.insert(id, file.clone());
        }
    }

    let uncovered: BTreeSet<String> = fs::read_to_string(core.join("spec/uncovered.txt"))
        .unwrap()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();

    let mut faults = Vec::new();
    for &id in &musts {
        match (proved.get(id), uncovered.contains(id)) {
            (None, false) => faults.push(format!("{id}: no test proves it:{}", spec[id])),
            (Some(file), true) => {
                faults.push(format!("{id}: proved in {}, so take it off spec/uncovered.txt", file.display()));
            }
            _ => {}
        }
    }
    for (id, file) in &proved {
        if !spec.contains_key(id) {
            faults.push(format!("{id}: claimed in {}, but no requirement", file.display()));
        }
    }
    for id in uncovered.iter().filter(|id| !musts.contains(id)) {
        faults.push(format!("{id}: in spec/uncovered.txt, but no requirement with a MUST"));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn requirements_and_claims_are_found() {
    let spec =
        requirements("text\n* [R-A-1] It MUST\n  work.\n\nother\n* [R-A-2] It MAY.\n  x\ny\n  not this\n");
    assert_eq!(spec["R-A-1"], " It MUST work.");
    assert_eq!(spec["R-A-2"], " It MAY. x");
    let found = claims(
        "/// Proves R-A-1, R-B-22.\nfn x() {} // nothing R-C-1\n//! Proves R-D-1,\n//! R-E-1\n// R-F-1\n",
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["R-A-1", "R-B-22", "R-D-1", "R-E-1"]);
}
