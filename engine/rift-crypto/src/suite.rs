//! Cipher suites: their numbers on the wire, what this machine does well, and the choice.

/// How packets are sealed. The number is the one on the wire (RIFT §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439). Every peer can do it.
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D). Offered where the CPU does AES and carry-less multiplication.
    Aes256Gcm = 2,
}

impl Suite {
    /// What this machine should offer and accept, best first.
    ///
    /// AES-256-GCM leads where the CPU has instructions for it (it is then twice as fast as
    /// ChaCha20) and is absent elsewhere, where it would be slow and leak through its tables.
    #[must_use]
    pub fn supported() -> &'static [Suite] {
        if cpu_accelerates_aes_gcm() {
            &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
        } else {
            &[Suite::ChaCha20Poly1305]
        }
    }

    /// The first of `own` (best first) that the peer also offered.
    #[must_use]
    pub fn choose(own: &[Suite], offered: &SuiteList) -> Option<Suite> {
        own.iter().copied().find(|suite| offered.contains(*suite))
    }

    /// The suite of a wire number, `None` for one this version does not know.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Suite> {
        match number {
            1 => Some(Suite::ChaCha20Poly1305),
            2 => Some(Suite::Aes256Gcm),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }
}

/// The suites of one offer, in the peer's order, without repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SuiteList {
    items: [Suite; SuiteList::CAPACITY],
    len: u8,
}

impl SuiteList {
    /// Every suite there is can be listed once.
    const CAPACITY: usize = 2;

    /// The suites of `suites`, in order; a repeat is dropped.
    #[must_use]
    pub fn new(suites: &[Suite]) -> Self {
        let mut list = Self { items: [Suite::ChaCha20Poly1305; Self::CAPACITY], len: 0 };
        for &suite in suites {
            list.push(suite);
        }
        list
    }

    /// The suites, in the peer's order.
    #[must_use]
    pub fn as_slice(&self) -> &[Suite] {
        &self.items[..usize::from(self.len)]
    }

    /// Whether `suite` was offered.
    #[must_use]
    pub fn contains(&self, suite: Suite) -> bool {
        self.as_slice().contains(&suite)
    }

    /// Adds `suite` unless it is there already, which also bounds the length.
    pub(crate) fn push(&mut self, suite: Suite) {
        if !self.contains(suite) {
            self.items[usize::from(self.len)] = suite;
            self.len += 1;
        }
    }
}

impl std::fmt::Debug for SuiteList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_accelerates_aes_gcm() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_accelerates_aes_gcm() -> bool {
    // The "aes" feature of the detector covers PMULL too.
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_accelerates_aes_gcm() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha20_is_always_supported_and_aes_leads_where_present() {
        let supported = Suite::supported();
        assert_eq!(supported.last(), Some(&Suite::ChaCha20Poly1305));
        assert_eq!(supported.len() == 2, cpu_accelerates_aes_gcm());
    }

    #[test]
    fn choice_follows_own_preference_within_the_offer() {
        let both = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let offer = SuiteList::new(&[Suite::ChaCha20Poly1305, Suite::Aes256Gcm]);
        assert_eq!(Suite::choose(&both, &offer), Some(Suite::Aes256Gcm));
        let offer = SuiteList::new(&[Suite::ChaCha20Poly1305]);
        assert_eq!(Suite::choose(&both, &offer), Some(Suite::ChaCha20Poly1305));
        assert_eq!(Suite::choose(&[Suite::Aes256Gcm], &offer), None);
    }

    #[test]
    fn wire_numbers_are_those_of_the_specification() {
        assert_eq!((Suite::ChaCha20Poly1305.to_wire(), Suite::Aes256Gcm.to_wire()), (1, 2));
        for number in 0..=u8::MAX {
            assert_eq!(
                Suite::from_wire(number).map(Suite::to_wire),
                (1..=2).contains(&number).then_some(number)
            );
        }
    }

    #[test]
    fn repeats_in_a_list_are_dropped() {
        let list = SuiteList::new(&[Suite::Aes256Gcm; 5]);
        assert_eq!(list.as_slice(), [Suite::Aes256Gcm]);
    }
}
