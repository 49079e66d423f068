//! The code by which a node asks an admin on another machine to countersign its new keys.
//!
//! ```text
//! smeshrot1 ‖ base32(data ‖ checksum)        as invite codes are written
//! data = Rotated body (rotation ‖ old signature ‖ new signature) ‖ consent of the new key [64]
//! ```
//! Nothing in it is secret, and it is of use to nobody but an admin of the node's studio.

use super::records::{Consent, Rotated};
use crate::codec;
use crate::keys::{ForgedSignature, Signature};
use crate::text_code::{self, BadText};

const WORD: &str = "smeshrot";
const VERSION: char = '1';
const SIGNATURE_LEN: usize = 64;

/// What an admin countersigns: the rotation, and the new key's consent for its member record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRequest {
    pub rotated: Rotated,
    /// Under [`Consent`], by the new key.
    pub consent: Signature,
}

/// A text that is no rotation request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRotationCode {
    #[error(
        "this is not a rotation code: those begin with {WORD}{VERSION}; copy the whole line from the other machine"
    )]
    NotARotationCode,
    #[error("the rotation code has a wrong or missing character; copy the whole line again")]
    Damaged,
    #[error(
        "the rotation code has version {0}, this release reads version {VERSION}; upgrade the older side"
    )]
    Version(char),
    #[error("the rotation code is not signed by both keys; make a new one with scenemesh rotate")]
    Forged(#[from] ForgedSignature),
}

impl RotationRequest {
    /// As one line to copy.
    pub fn to_code(&self) -> String {
        let data = [codec::encode_body(&self.rotated), self.consent.as_bytes().to_vec()].concat();
        text_code::write(WORD, VERSION, &data).to_string()
    }

    /// Reads a code and checks that both keys signed it.
    ///
    /// # Errors
    /// As [`BadRotationCode`] says.
    pub fn from_code(text: &str) -> Result<Self, BadRotationCode> {
        let data = text_code::read(WORD, VERSION, text).map_err(|bad| match bad {
            BadText::Other => BadRotationCode::NotARotationCode,
            BadText::Version(theirs) => BadRotationCode::Version(theirs),
            BadText::Damaged => BadRotationCode::Damaged,
        })?;
        let (body, consent) = data.split_last_chunk::<SIGNATURE_LEN>().ok_or(BadRotationCode::Damaged)?;
        let rotated: Rotated = codec::decode_body(body, <Rotated as codec::Message>::LIMIT)
            .map_err(|_| BadRotationCode::Damaged)?;
        let request = Self { rotated, consent: Signature::from_bytes(*consent) };
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), ForgedSignature> {
        let Rotated { rotation, old_signature, new_signature } = &self.rotated;
        rotation.verify(&rotation.old, old_signature)?;
        rotation.verify(&rotation.new, new_signature)?;
        self.consent_terms().verify(&rotation.new, &self.consent)
    }

    /// What the new key consents to.
    pub const fn consent_terms(&self) -> Consent {
        let rotation = &self.rotated.rotation;
        Consent { pool: rotation.pool, studio: rotation.studio, kem: rotation.kem }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rotation;
    use super::*;
    use crate::ids::{PoolId, StudioId};
    use crate::keys::{KemSecret, SecretKey};

    fn request(signer: &SecretKey) -> RotationRequest {
        let (old, new) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let rotation = Rotation {
            pool: PoolId::from_bytes([3; 16]),
            studio: StudioId::from_bytes([4; 16]),
            old: old.public(),
            new: new.public(),
            kem: KemSecret::from_bytes(&[5; 32]).public(),
            issued_ms: 6,
        };
        let (old_signature, new_signature) = (rotation.sign(signer), rotation.sign(&new));
        let rotated = Rotated { rotation, old_signature, new_signature };
        let terms = Consent { pool: rotation.pool, studio: rotation.studio, kem: rotation.kem };
        RotationRequest { rotated, consent: terms.sign(&new) }
    }

    #[test]
    fn a_code_is_read_as_it_was_written_and_forged_ones_are_refused() {
        let sound = request(&SecretKey::from_seed(&[1; 32]));
        let code = sound.to_code();
        assert!(code.starts_with("smeshrot1"), "{code}");
        assert_eq!(RotationRequest::from_code(&code.to_uppercase()), Ok(sound));
        assert_eq!(RotationRequest::from_code(&code[..60]), Err(BadRotationCode::Damaged));
        assert_eq!(RotationRequest::from_code("smesh1abc"), Err(BadRotationCode::NotARotationCode));
        let forged = request(&SecretKey::from_seed(&[9; 32])).to_code();
        assert!(matches!(RotationRequest::from_code(&forged), Err(BadRotationCode::Forged(_))));
    }
}
