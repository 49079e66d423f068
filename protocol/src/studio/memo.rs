//! Memos: who submitted a task and for which project, readable by the requester's own studio only.
//!
//! HPKE base mode (RFC 9180) as in `envelope.rs`, to the studio's key; the info is `"scenemesh/v1/memo\0"` and the
//! encoded [`MemoPlace`]; the plaintext is its length as u16 LE, the encoded [`Memo`], and zeros up to 256 bytes, so
//! that the size tells nothing.

use std::fmt;

use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::{MemoPlace, StudioKey, StudioSecret};
use crate::codec::{self, Decode, Encode};
use crate::ids::ProjectId;
use crate::keys::HpkeKem;

/// Bytes of every memo before sealing.
const PADDED_LEN: usize = 256;
/// Longest person and label, in bytes; longer ones are cut.
const TEXT_LIMIT: usize = 80;
const INFO_LABEL: &[u8] = b"scenemesh/v1/memo\0";

type Aead = hpke::aead::ChaCha20Poly1305;
type Kdf = hpke::kdf::HkdfSha256;

/// What a studio writes into its own books about a task.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Memo {
    /// Who submitted it, as the local API's token says.
    pub person: String,
    pub project: Option<ProjectId>,
    /// What the job is called.
    pub label: String,
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo(…)")
    }
}

/// A sealed memo as it stands in a grant's terms.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SealedMemo {
    /// Version of the studio key it is sealed to.
    pub key: u32,
    /// HPKE's encapsulated key.
    pub enc: [u8; 32],
    /// Padded plaintext and tag.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for SealedMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedMemo(key {})", self.key)
    }
}

/// Why a memo cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMemo {
    #[error("the studio's key is weak")]
    WeakKey,
    #[error("the memo is damaged, of another task, or sealed to another studio's key")]
    NotForThisKey,
}

impl Memo {
    /// Seals it to the studio's key for one attempt. Texts over 80 bytes are cut.
    ///
    /// # Errors
    /// When the key is weak.
    pub fn seal(&self, to: &StudioKey, place: &MemoPlace) -> Result<SealedMemo, BadMemo> {
        let kem = to.kem.hpke().filter(|_| to.kem.is_sound()).ok_or(BadMemo::WeakKey)?;
        let cut = Self { person: cut(&self.person), project: self.project, label: cut(&self.label) };
        let body = Zeroizing::new(codec::encode_body(&cut));
        let mut plain = Zeroizing::new([0; PADDED_LEN]);
        let len = u16::try_from(body.len()).expect("two short texts and an id");
        plain[..2].copy_from_slice(&len.to_le_bytes());
        plain[2..2 + body.len()].copy_from_slice(&body);
        let (enc, mut context) = hpke::setup_sender::<Aead, Kdf, HpkeKem>(&OpModeS::Base, &kem, &info(place))
            .map_err(|_| BadMemo::WeakKey)?;
        let ciphertext = context.seal(plain.as_slice(), b"").map_err(|_| BadMemo::WeakKey)?;
        Ok(SealedMemo { key: to.version, enc: enc.to_bytes().into(), ciphertext })
    }
}

impl SealedMemo {
    /// Whether its size is that of a memo; whoever signs or keeps one checks this.
    pub fn is_well_formed(&self) -> bool {
        self.ciphertext.len() == PADDED_LEN + 16
    }

    /// Opens it with the secret of the key version it names.
    ///
    /// # Errors
    /// When it was sealed to another key, for another place, or is damaged.
    pub fn open(&self, secret: &StudioSecret, place: &MemoPlace) -> Result<Memo, BadMemo> {
        let bad = |_| BadMemo::NotForThisKey;
        let enc = <HpkeKem as Kem>::EncappedKey::from_bytes(&self.enc).map_err(bad)?;
        let kem = secret.kem();
        let plain =
            hpke::setup_receiver::<Aead, Kdf, HpkeKem>(&OpModeR::Base, kem.hpke(), &enc, &info(place))
                .and_then(|mut context| context.open(&self.ciphertext, b""))
                .map(Zeroizing::new)
                .map_err(bad)?;
        let (len, rest) = plain.split_first_chunk().ok_or(BadMemo::NotForThisKey)?;
        let body = rest.get(..usize::from(u16::from_le_bytes(*len))).ok_or(BadMemo::NotForThisKey)?;
        codec::decode_body(body, PADDED_LEN).map_err(|_| BadMemo::NotForThisKey)
    }
}

fn info(place: &MemoPlace) -> Vec<u8> {
    [INFO_LABEL, &codec::encode_body(place)].concat()
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_LIMIT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PoolId, StudioId, TaskId};

    fn place() -> MemoPlace {
        MemoPlace {
            pool: PoolId::from_bytes([1; 16]),
            studio: StudioId::from_bytes([2; 16]),
            task: TaskId::from_bytes([3; 16]),
            attempt: 1,
        }
    }

    fn key(secret: &StudioSecret) -> StudioKey {
        let MemoPlace { pool, studio, .. } = place();
        StudioKey { pool, studio, version: 4, kem: secret.kem().public(), issued_ms: 0 }
    }

    fn memo(person: &str) -> Memo {
        Memo { person: person.into(), project: Some(ProjectId::from_bytes([7; 16])), label: "샷 12".into() }
    }

    #[test]
    fn a_memo_opens_for_its_studio_and_its_attempt_only() {
        let secret = StudioSecret::generate();
        let sealed = memo("mina").seal(&key(&secret), &place()).unwrap();
        assert_eq!(sealed.key, 4);
        assert_eq!(sealed.open(&secret, &place()), Ok(memo("mina")));
        let other = MemoPlace { attempt: 2, ..place() };
        assert_eq!(sealed.open(&secret, &other), Err(BadMemo::NotForThisKey));
        assert_eq!(sealed.open(&StudioSecret::generate(), &place()), Err(BadMemo::NotForThisKey));
        let mut flipped = sealed.clone();
        flipped.ciphertext[40] ^= 1;
        assert_eq!(flipped.open(&secret, &place()), Err(BadMemo::NotForThisKey));
    }

    #[test]
    fn its_size_tells_nothing() {
        let secret = StudioSecret::generate();
        let long = "긴".repeat(400);
        for person in ["", "mina", long.as_str()] {
            let sealed = memo(person).seal(&key(&secret), &place()).unwrap();
            assert!(sealed.is_well_formed());
            let opened = sealed.open(&secret, &place()).unwrap();
            assert!(person.starts_with(&opened.person) && opened.person.len() <= TEXT_LIMIT);
        }
    }

    #[test]
    fn nothing_of_it_prints() {
        assert!(!format!("{:?}", memo("mina")).contains("mina"));
    }
}
