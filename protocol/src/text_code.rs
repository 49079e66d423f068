//! Short secrets as text that people copy: a word, a version digit, then base32 with a checksum.
//!
//! `word ‖ version ‖ base32(data ‖ checksum)` in lower case without padding (RFC 4648 section 6). The checksum is
//! the first four bytes of `BLAKE3("scenemesh/v1/text-code\0" ‖ word ‖ version ‖ data)`. Reading forgives case,
//! white space, line breaks and hyphens anywhere, and the digits 0, 1 and 8, which the alphabet lacks.

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

const CHECKSUM_LEN: usize = 4;
/// Longest text looked at; no code is near it.
const TEXT_LIMIT: usize = 4096;

/// Why a text is not the code that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadText {
    /// It does not begin with the word.
    Other,
    Version(char),
    /// Characters are missing, wrong or too many.
    Damaged,
}

fn checksum(prefix: &str, data: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"scenemesh/v1/text-code\0").update(prefix.as_bytes()).update(data);
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_LEN]);
    sum
}

/// Writes `data` under a word and a version.
pub(crate) fn write(word: &str, version: char, data: &[u8]) -> Zeroizing<String> {
    let prefix = format!("{word}{version}");
    let bytes = Zeroizing::new([data, &checksum(&prefix, data)].concat());
    let upper = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + upper.len()));
    text.push_str(&prefix);
    text.extend(upper.chars().map(|c| c.to_ascii_lowercase()));
    text
}

/// Reads what [`write`] wrote.
pub(crate) fn read(word: &str, version: char, text: &str) -> Result<Zeroizing<Vec<u8>>, BadText> {
    if text.len() > TEXT_LIMIT {
        return Err(BadText::Other);
    }
    // Sized once, so that no copy of the secret stays behind in a buffer that grew.
    let mut compact = Zeroizing::new(String::with_capacity(text.len()));
    compact.extend(text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_lowercase()));
    let rest = compact.strip_prefix(word).ok_or(BadText::Other)?;
    let theirs = rest.chars().next().filter(char::is_ascii_digit).ok_or(BadText::Other)?;
    if theirs != version {
        return Err(BadText::Version(theirs));
    }
    let mut upper = Zeroizing::new(String::with_capacity(rest.len()));
    upper.extend(rest[1..].chars().map(|c| match c {
        '0' => 'O',
        '1' => 'L',
        '8' => 'B',
        other => other.to_ascii_uppercase(),
    }));
    let bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| BadText::Damaged)?;
    let bytes = Zeroizing::new(bytes);
    let (data, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(BadText::Damaged)?;
    if checksum(&format!("{word}{version}"), data) != *sum {
        return Err(BadText::Damaged);
    }
    Ok(Zeroizing::new(data.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_ways_people_copy_it() {
        let text = write("smesh", '1', b"some secret bytes");
        assert!(text.starts_with("smesh1"));
        let shouted = text.to_uppercase();
        let wrapped: String = text
            .chars()
            .enumerate()
            .flat_map(|(i, c)| [Some(c), (i % 7 == 3).then_some('\n')])
            .flatten()
            .collect();
        for copy in [text.as_str(), &shouted, &wrapped, &format!("  {}\r\n", text.as_str())] {
            assert_eq!(read("smesh", '1', copy).unwrap().as_slice(), b"some secret bytes");
        }
    }

    #[test]
    fn what_went_wrong_is_told_apart() {
        let text = write("smesh", '1', b"some secret bytes");
        assert_eq!(read("smesh", '1', "hello"), Err(BadText::Other));
        assert_eq!(read("smesh", '1', ""), Err(BadText::Other));
        assert_eq!(read("smesh", '1', "smeshx"), Err(BadText::Other));
        assert_eq!(read("smesh", '1', &text.replacen('1', "2", 1)), Err(BadText::Version('2')));
        assert_eq!(read("smesh", '1', &text[..text.len() - 1]), Err(BadText::Damaged));
        assert_eq!(read("smesh", '1', &format!("{}a", text.as_str())), Err(BadText::Damaged));
        assert_eq!(read("smesh", '1', "smesh1"), Err(BadText::Damaged));
        assert_eq!(read("smesh", '1', "smesh1é"), Err(BadText::Damaged));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = write("smesh", '1', &[0x5a; 20]);
        for at in 6..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'q' { b'r' } else { b'q' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(read("smesh", '1', &changed), Err(BadText::Damaged), "character {at}");
        }
    }
}
