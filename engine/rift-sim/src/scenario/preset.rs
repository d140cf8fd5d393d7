//! Scenarios with names.

use super::Scenario;
use super::suite::SUITE;

/// A scenario that can be named on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    pub(super) text: &'static str,
}

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "lan",
        about: "wired home network: 1 Gbit/s, 0.4 ms round trip",
        text: "name lan; duration 30s; down rate 1Gbit/s delay 200us queue 500kB; up rate 1Gbit/s delay 200us;
               video rate 50Mbit/s; limit latency 30ms freeze 34ms keyframes 0 shown 99.9% stuck 100ms",
    },
    Preset {
        name: "lossy",
        about: "2 % random loss both ways, 20 ms round trip: what must hold in any case",
        text: "name lossy; duration 60s; down rate 100Mbit/s delay 10ms queue 500kB loss 2%; up delay 10ms loss 2%;
               video rate 20Mbit/s; limit latency 130ms freeze 100ms keyframes 0 shown 95% stuck 1s",
    },
    Preset {
        name: "bursts",
        about: "losses of 6 packets on average, 1 % in all, 20 ms round trip",
        text: "name bursts; duration 60s; down rate 100Mbit/s delay 10ms queue 500kB loss burst 1% 6;
               up delay 10ms loss burst 1% 3; video rate 20Mbit/s;
               limit latency 130ms freeze 120ms shown 94% stuck 1s",
    },
    Preset {
        name: "wifi",
        about: "jitter, reordering, copies and damage with some loss",
        text: "name wifi; duration 60s; down rate 80Mbit/s delay 3ms jitter 4ms queue 300kB loss 0.5% reorder 0.5% 2ms \
               duplicate 0.2% corrupt 0.1%; up rate 40Mbit/s delay 3ms jitter 4ms loss 0.5% reorder 0.5% 2ms;
               video rate 15Mbit/s; limit latency 130ms freeze 100ms shown 97% stuck 1s",
    },
    Preset {
        name: "squeeze",
        about: "the path narrows from 60 to 10 Mbit/s and widens again; queues must not eat the latency for long",
        text: "name squeeze; duration 60s; down rate 60Mbit/s delay 10ms queue 150kB; up delay 10ms;
               video rate 20Mbit/s; at 15s down rate 10Mbit/s; at 40s down rate 60Mbit/s;
               limit latency 300ms shown 70% stuck 1s",
    },
    Preset {
        name: "hostile",
        about: "an attacker copies, reflects, damages and invents packets all the time",
        text: "name hostile; duration 30s; down rate 100Mbit/s delay 5ms; up delay 5ms; attack 20%; video rate 10Mbit/s;
               limit latency 130ms freeze 100ms keyframes 0 shown 99% stuck 500ms",
    },
    Preset {
        name: "jumps",
        about: "clocks drift apart and jump both ways",
        text: "name jumps; duration 60s; down delay 5ms; up delay 5ms; clock host 5000s 50; clock client 70s -50;
               at 10s jump client 2s; at 20s jump client -2s; at 30s jump host 3s; at 40s jump host -3s;
               at 45s jump client 1h; at 50s jump host 24h; limit stuck 4s shown 60%",
    },
    Preset {
        name: "roaming",
        about: "the client's address changes, it vanishes, comes back, and leaves in good order",
        text: "name roaming; duration 40s; down delay 10ms; up delay 10ms; at 5s rebind; at 10s rebind; at 15s vanish;
               at 20s restart; at 30s restart; at 38s close client; limit latency 130ms stuck 4s keyframes 0",
    },
    Preset {
        name: "day",
        about: "24 hours at a low frame rate, with key renewal every hour",
        text: "name day; duration 24h; down delay 5ms loss 0.1%; up delay 5ms loss 0.1%;
               video fps 1 rate 20kbit/s slices 1 fixed; input 1; protocol ping 500ms; limit stuck 2s shown 99%",
    },
];

impl Preset {
    /// The scenario.
    ///
    /// # Panics
    /// Never: every preset's text is parsed in a test.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        self.text.parse().unwrap_or_else(|error| panic!("preset {}: {error}", self.name))
    }

    /// The preset called `name`, those of the [suite](super::suite) included.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        let rows = SUITE.iter().map(|row| &row.preset);
        PRESETS.iter().chain(rows).find(|preset| preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_scenario_of_its_name_and_survives_its_text_form() {
        for preset in PRESETS {
            let scenario = preset.scenario();
            assert_eq!(scenario.name, preset.name);
            assert_eq!(scenario.to_string().parse::<Scenario>(), Ok(scenario), "{}", preset.name);
        }
        assert!(Preset::find("lossy").is_some() && Preset::find("nothing").is_none());
    }
}
