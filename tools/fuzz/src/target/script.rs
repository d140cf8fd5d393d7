//! Reads an input as a list of steps, so that one input can hold several messages.

/// The steps of an input: each is a length (u16, little-endian) and so many bytes; the last takes what is
/// left. Any bytes are a script.
pub(super) fn steps(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, behind) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(behind.len());
        let (step, next) = behind.split_at(len);
        rest = next;
        Some(step)
    })
}

/// A script of `steps`.
pub(super) fn script<'a>(steps: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        bytes.extend(u16::try_from(step.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(&step[..step.len().min(usize::from(u16::MAX))]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_the_steps_it_was_made_of() {
        let parts: [&[u8]; 3] = [b"one", b"", b"three"];
        let bytes = script(parts);
        assert_eq!(steps(&bytes).collect::<Vec<_>>(), parts);
        assert_eq!(steps(&[9, 0, 1, 2]).collect::<Vec<_>>(), [&[1, 2]]);
        assert_eq!(steps(&[9]).count(), 0);
    }
}
