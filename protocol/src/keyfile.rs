//! Key files of studio admins: a seed sealed under a passphrase, as five lines of text.
//!
//! ```text
//! scenemesh admin key 1
//! public <64 hex digits>
//! kdf argon2id m=65536 t=3 p=1
//! salt <32 hex digits>
//! sealed <96 hex digits>
//! ```
//!
//! The seed is sealed with ChaCha20-Poly1305 under a key that Argon2id (RFC 9106, version 0x13) makes from
//! passphrase and salt; the four lines before it, each with its line feed, are the associated data. The nonce is
//! zero: a salt is random and used once, so no key ever seals twice. A file without a passphrase has the first
//! two lines and `seed <64 hex digits>`. Reading does not mind carriage returns or blank lines at the end.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use crate::ids::random_bytes;
use crate::keys::{PublicKey, SecretKey};
use crate::text_code::{self, BadText};

const FIRST_LINE: &str = "scenemesh admin key 1";
const FIRST_WORDS: &str = "scenemesh admin key ";
/// Longest file looked at, in bytes; a real one has under 400.
const FILE_LIMIT: usize = 4096;
const SEALED_LEN: usize = 32 + 16;

/// What it costs to try one passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Of new files: 64 MiB and three passes, about 0.2 s (RFC 9106 section 4, second recommended option).
const COST: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// What a file may ask of the machine that opens it: 1 GiB.
const MOST: Cost = Cost { memory_kib: 1 << 20, passes: 32, lanes: 16 };

impl Cost {
    fn within(self, most: Self) -> bool {
        self.memory_kib <= most.memory_kib && self.passes <= most.passes && self.lanes <= most.lanes
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("argon2id ")?.split(' ');
        let mut number = |name| parts.next()?.strip_prefix(name)?.parse().ok();
        let cost = Self { memory_kib: number("m=")?, passes: number("t=")?, lanes: number("p=")? };
        parts.next().is_none().then_some(cost)
    }

    fn derive(self, passphrase: &[u8], salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, OpenKeyError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| OpenKeyError::Derivation)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .map_err(|_| OpenKeyError::Derivation)?;
        Ok(key)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argon2id m={} t={} p={}", self.memory_kib, self.passes, self.lanes)
    }
}

/// A key file as read: with a passphrase or without.
#[derive(Clone, Debug)]
pub enum KeyFile {
    Sealed(SealedKey),
    Plain(SecretKey),
}

/// A key that waits for its passphrase.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    public: PublicKey,
    cost: Cost,
    salt: [u8; 16],
    sealed: [u8; SEALED_LEN],
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey(of {:?})", self.public)
    }
}

/// Bytes that are not an admin key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyFile {
    #[error("this is not an admin key file: those begin with {FIRST_LINE:?}")]
    NotAKeyFile,
    #[error("the key file has version {0:?}, this release reads version 1")]
    Version(String),
    #[error("the key file is damaged: its line {0:?} is missing or malformed; restore it from a backup")]
    Damaged(&'static str),
    #[error("the key file asks for {0} to open it, more than this release allows")]
    TooCostly(String),
}

/// A sealed key that did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenKeyError {
    #[error("the passphrase is wrong, or the key file was changed")]
    WrongPassphrase,
    #[error("the key cannot be derived: the file's kdf line is out of bounds, or there is no memory for it")]
    Derivation,
}

/// Seals `key` under a passphrase. The passphrase's bytes are taken as they are: strip a line end before.
/// Takes about 0.2 s of one core.
///
/// # Panics
/// When there is no memory for Argon2.
pub fn seal(key: &SecretKey, passphrase: &[u8]) -> String {
    seal_with(key, passphrase, COST, random_bytes())
}

fn seal_with(key: &SecretKey, passphrase: &[u8], cost: Cost, salt: [u8; 16]) -> String {
    let header = sealed_header(key.public(), cost, &salt);
    let derived = cost.derive(passphrase, &salt).expect("memory for 64 MiB of Argon2");
    let sealed = cipher(&derived)
        .encrypt(&Nonce::default(), Payload { msg: key.to_seed().as_slice(), aad: header.as_bytes() })
        .expect("a seed is short");
    format!("{header}sealed {}\n", HEXLOWER.encode(&sealed))
}

fn sealed_header(public: PublicKey, cost: Cost, salt: &[u8; 16]) -> String {
    format!("{FIRST_LINE}\npublic {public}\nkdf {cost}\nsalt {}\n", HEXLOWER.encode(salt))
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*key))
}

/// Writes `key` unsealed, for `--no-passphrase`: whoever reads the file is an admin.
pub fn write_plain(key: &SecretKey) -> Zeroizing<String> {
    let seed = Zeroizing::new(HEXLOWER.encode(key.to_seed().as_slice()));
    Zeroizing::new(format!("{FIRST_LINE}\npublic {}\nseed {}\n", key.public(), seed.as_str()))
}

impl KeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// As [`BadKeyFile`] says.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKeyFile> {
        if bytes.len() > FILE_LIMIT {
            return Err(BadKeyFile::NotAKeyFile);
        }
        let text = str::from_utf8(bytes).map_err(|_| BadKeyFile::NotAKeyFile)?;
        let mut lines = text.trim_end().lines();
        let version = lines.next().and_then(|line| line.strip_prefix(FIRST_WORDS));
        match version.ok_or(BadKeyFile::NotAKeyFile)? {
            "1" => {}
            other => return Err(BadKeyFile::Version(other.chars().take(16).collect())),
        }
        let public = PublicKey::from_bytes(hex(lines.next(), "public")?);
        let third = lines.next();
        let file = if third.is_some_and(|line| line.starts_with("seed ")) {
            let key = SecretKey::from_seed(&Zeroizing::new(hex(third, "seed")?));
            if key.public() != public {
                return Err(BadKeyFile::Damaged("seed"));
            }
            Self::Plain(key)
        } else {
            let kdf = third.and_then(|line| line.strip_prefix("kdf ")).ok_or(BadKeyFile::Damaged("kdf"))?;
            let cost = Cost::parse(kdf).ok_or(BadKeyFile::Damaged("kdf"))?;
            if !cost.within(MOST) {
                return Err(BadKeyFile::TooCostly(cost.to_string()));
            }
            let salt = hex(lines.next(), "salt")?;
            Self::Sealed(SealedKey { public, cost, salt, sealed: hex(lines.next(), "sealed")? })
        };
        if lines.next().is_some() { Err(BadKeyFile::Damaged("end")) } else { Ok(file) }
    }

    /// The key's public half; known without the passphrase, and checked when it is opened.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Sealed(sealed) => sealed.public,
            Self::Plain(key) => key.public(),
        }
    }
}

fn hex<const N: usize>(line: Option<&str>, name: &'static str) -> Result<[u8; N], BadKeyFile> {
    let bytes = line
        .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok())
        .map(Zeroizing::new);
    bytes.and_then(|bytes| bytes.as_slice().try_into().ok()).ok_or(BadKeyFile::Damaged(name))
}

impl SealedKey {
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Opens the key. Takes as long as sealing did: about 0.2 s of one core.
    ///
    /// # Errors
    /// When the passphrase is wrong, or the file was changed: the two cannot be told apart.
    pub fn open(&self, passphrase: &[u8]) -> Result<SecretKey, OpenKeyError> {
        let header = sealed_header(self.public, self.cost, &self.salt);
        let derived = self.cost.derive(passphrase, &self.salt)?;
        let seed = cipher(&derived)
            .decrypt(&Nonce::default(), Payload { msg: &self.sealed, aad: header.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| OpenKeyError::WrongPassphrase)?;
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| OpenKeyError::WrongPassphrase)?;
        let key = SecretKey::from_seed(seed);
        if key.public() == self.public { Ok(key) } else { Err(OpenKeyError::WrongPassphrase) }
    }
}

const RECOVERY_WORD: &str = "smeshkey";
const RECOVERY_VERSION: char = '1';

/// A text that is no recovery code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecoveryCode {
    #[error("this is not a recovery code: those begin with {RECOVERY_WORD}{RECOVERY_VERSION}")]
    NotARecoveryCode,
    #[error("the recovery code has a wrong or missing character: compare it with the printed one")]
    Damaged,
    #[error("the recovery code has version {0}, this release reads version {RECOVERY_VERSION}")]
    Version(char),
}

/// A second admin key as text, to be printed once and kept on paper: whoever reads it is an admin.
pub fn recovery_code(key: &SecretKey) -> Zeroizing<String> {
    text_code::write(RECOVERY_WORD, RECOVERY_VERSION, key.to_seed().as_slice())
}

/// Reads a recovery code as people type it.
///
/// # Errors
/// As [`BadRecoveryCode`] says.
pub fn from_recovery_code(text: &str) -> Result<SecretKey, BadRecoveryCode> {
    let seed = text_code::read(RECOVERY_WORD, RECOVERY_VERSION, text).map_err(|bad| match bad {
        BadText::Other => BadRecoveryCode::NotARecoveryCode,
        BadText::Version(theirs) => BadRecoveryCode::Version(theirs),
        BadText::Damaged => BadRecoveryCode::Damaged,
    })?;
    let seed = seed.as_slice().try_into().map_err(|_| BadRecoveryCode::Damaged)?;
    Ok(SecretKey::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    fn key() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    fn cheap_file() -> String {
        seal_with(&key(), b"correct horse", CHEAP, [8; 16])
    }

    fn parse_sealed(text: &str) -> Result<SealedKey, BadKeyFile> {
        match KeyFile::parse(text.as_bytes())? {
            KeyFile::Sealed(sealed) => Ok(sealed),
            KeyFile::Plain(_) => panic!("not sealed"),
        }
    }

    #[test]
    fn a_new_file_opens_with_its_passphrase_only() {
        let text = seal(&key(), "여름 render wrangler".as_bytes());
        assert!(text.contains("\nkdf argon2id m=65536 t=3 p=1\n"), "{text}");
        let sealed = parse_sealed(&text).unwrap();
        assert_eq!(sealed.public(), key().public());
        let opened = sealed.open("여름 render wrangler".as_bytes()).unwrap();
        assert_eq!(opened.to_seed(), key().to_seed());
        assert_eq!(sealed.open(b"summer render wrangler").unwrap_err(), OpenKeyError::WrongPassphrase);
    }

    #[test]
    fn the_form_of_a_file_is_pinned() {
        let expected = "scenemesh admin key 1\n\
            public ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c\n\
            kdf argon2id m=64 t=1 p=1\n\
            salt 08080808080808080808080808080808\n\
            sealed e6000efbbcd81ae957cea0e50a9b8c01fd904cc3ed9f287ea83f7868e94a8597\
            86e3ee75e23d7f9584923f81f5dce320\n";
        assert_eq!(cheap_file(), expected);
        assert!(parse_sealed(expected).unwrap().open(b"correct horse").is_ok());
    }

    #[test]
    fn a_changed_file_does_not_open() {
        let text = cheap_file();
        for at in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            if changed == text.as_bytes() {
                continue;
            }
            let changed = String::from_utf8(changed).unwrap();
            let refused = parse_sealed(&changed).map_or(true, |sealed| {
                // A cost of gigabytes is refused or would only take long; it never gives the key.
                !sealed.cost.within(Cost { memory_kib: 1024, passes: 32, lanes: 16 })
                    || sealed.open(b"correct horse").is_err()
            });
            assert!(refused, "byte {at}: {changed}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_apart() {
        let text = cheap_file();
        let with = |from: &str, to: &str| parse_sealed(&text.replace(from, to)).unwrap_err();
        assert_eq!(parse_sealed("-----BEGIN KEY-----"), Err(BadKeyFile::NotAKeyFile));
        assert_eq!(parse_sealed(""), Err(BadKeyFile::NotAKeyFile));
        assert_eq!(KeyFile::parse(&[0xff; 9]).unwrap_err(), BadKeyFile::NotAKeyFile);
        assert_eq!(KeyFile::parse(&vec![b'\n'; FILE_LIMIT + 1]).unwrap_err(), BadKeyFile::NotAKeyFile);
        assert_eq!(with("key 1", "key 2"), BadKeyFile::Version("2".into()));
        assert_eq!(with("public ", "pubic "), BadKeyFile::Damaged("public"));
        assert_eq!(with("argon2id", "scrypt"), BadKeyFile::Damaged("kdf"));
        assert_eq!(with("p=1", "p=1 x=1"), BadKeyFile::Damaged("kdf"));
        assert!(matches!(with("m=64", "m=4000000000"), BadKeyFile::TooCostly(_)));
        assert_eq!(with("salt 08", "salt "), BadKeyFile::Damaged("salt"));
        assert_eq!(with("sealed ", "sealed 00"), BadKeyFile::Damaged("sealed"));
        assert_eq!(parse_sealed(&format!("{text}more")), Err(BadKeyFile::Damaged("end")));
    }

    #[test]
    fn line_ends_of_another_system_do_no_harm() {
        let text = cheap_file().replace('\n', "\r\n") + "\r\n";
        assert!(parse_sealed(&text).unwrap().open(b"correct horse").is_ok());
    }

    #[test]
    fn a_file_without_a_passphrase_is_read_as_it_is() {
        let text = write_plain(&key());
        let KeyFile::Plain(read) = KeyFile::parse(text.as_bytes()).unwrap() else { panic!("sealed") };
        assert_eq!(read.to_seed(), key().to_seed());
        let other = text.replace("seed 07", "seed 08");
        assert_eq!(KeyFile::parse(other.as_bytes()).unwrap_err(), BadKeyFile::Damaged("seed"));
    }

    #[test]
    fn a_recovery_code_is_the_key_on_paper() {
        let code = recovery_code(&key());
        let typed = code.to_uppercase();
        assert_eq!(from_recovery_code(&typed).unwrap().to_seed(), key().to_seed());
        assert_eq!(from_recovery_code(&code[..30]).unwrap_err(), BadRecoveryCode::Damaged);
        assert_eq!(from_recovery_code("smesh1abc").unwrap_err(), BadRecoveryCode::NotARecoveryCode);
        // The two kinds of code are not mistaken for each other.
        assert!(crate::invite::Invite::from_code(&code).is_err());
    }

    #[test]
    fn nothing_secret_prints() {
        let file = KeyFile::parse(write_plain(&key()).as_bytes()).unwrap();
        assert!(!format!("{file:?}").contains("0707"));
    }
}
