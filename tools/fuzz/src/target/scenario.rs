//! The text form of scenarios.

use rift_sim::{PRESETS, Scenario};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(scenario) = text.parse::<Scenario>() else { return };
    let written = scenario.to_string();
    match written.parse::<Scenario>() {
        Ok(again) => assert_eq!(again.to_string(), written),
        Err(error) => panic!("{error} in what was written: {written}"),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    PRESETS.iter().map(|preset| preset.scenario().to_string().into_bytes()).collect()
}
