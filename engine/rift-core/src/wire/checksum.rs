//! CRC-16/KERMIT: polynomial 0x1021, reflected, initial value 0, no final exclusive or.
//!
//! It finds garbage before any other work is done on it. It is not a security measure.

/// `TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes: eight input bytes are then
/// eight independent look-ups ("slicing by 8") instead of a chain of eight.
static TABLES: [[u16; 256]; 8] = tables();

const REFLECTED_POLYNOMIAL: u16 = 0x8408;

const fn tables() -> [[u16; 256]; 8] {
    let mut t = [[0u16; 256]; 8];
    let mut b = 0;
    while b < 256 {
        let mut crc = b as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ REFLECTED_POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        t[0][b] = crc;
        b += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut b = 0;
        while b < 256 {
            let shorter = t[k - 1][b];
            t[k][b] = (shorter >> 8) ^ t[0][(shorter & 0xff) as usize];
            b += 1;
        }
        k += 1;
    }
    t
}

/// The CRC-16/KERMIT of `bytes`.
#[must_use]
#[inline]
pub fn crc16_kermit(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut words = bytes.chunks_exact(8);
    for w in &mut words {
        let [low, high] = crc.to_le_bytes();
        crc = TABLES[7][usize::from(w[0] ^ low)]
            ^ TABLES[6][usize::from(w[1] ^ high)]
            ^ TABLES[5][usize::from(w[2])]
            ^ TABLES[4][usize::from(w[3])]
            ^ TABLES[3][usize::from(w[4])]
            ^ TABLES[2][usize::from(w[5])]
            ^ TABLES[1][usize::from(w[6])]
            ^ TABLES[0][usize::from(w[7])];
    }
    for &b in words.remainder() {
        crc = (crc >> 8) ^ TABLES[0][usize::from(b ^ crc as u8)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit_by_bit(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, &b| {
            (0..8).fold(
                crc ^ u16::from(b),
                |c, _| {
                    if c & 1 == 1 { (c >> 1) ^ REFLECTED_POLYNOMIAL } else { c >> 1 }
                },
            )
        })
    }

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc16_kermit(b"123456789"), 0x2189);
        assert_eq!(crc16_kermit(b""), 0);
    }

    #[test]
    fn slicing_agrees_with_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..64u32).map(|i| (i * 37 + 11) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc16_kermit(&bytes[..len]), bit_by_bit(&bytes[..len]), "length {len}");
        }
    }
}
