//! Every input that ever mattered is run again, and every target has some.

use wavry_fuzz::TARGETS;
use wavry_fuzz::driver::{corpus_of, read_corpus};

#[test]
fn the_corpus_of_every_target_passes() {
    for target in TARGETS {
        let inputs = read_corpus(&corpus_of(target)).unwrap();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in inputs.iter().chain(&(target.seeds)()) {
            (target.run)(input);
        }
    }
}

#[test]
fn the_corpus_has_no_folder_without_a_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "{name}");
    }
}
