//! Key files: the node's signing key, its KEM key, and on some machines a studio admin's key.
//!
//! ```text
//! DIR/keys/node.key     Ed25519, the node's identity          "scenemesh node key 1"
//! DIR/keys/kem.key      X25519, opens sealed envelopes        "scenemesh kem key 1"
//! DIR/keys/admin.key    Ed25519 of a studio's admin           protocol::keyfile
//! DIR/keys/studio-1.key X25519, opens the studio's memos      "scenemesh studio key 1"
//! ```
//! The directory is 0700, files are 0600; a file that others may read is refused rather than used. Each is written
//! to the side, synced and renamed, so that there is never half a key. Leaving a pool keeps all but the
//! studio's.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use scenemesh_protocol::keyfile::{self, BadKeyFile, KeyFile, OpenKeyError};
use scenemesh_protocol::keys::{KemSecret, PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::platform;

mod next;
mod studio;

pub(super) use next::{commit_next, next_keys};
pub(super) use studio::StudioFiles;

/// Longest key file looked at, in bytes.
const FILE_LIMIT: u64 = 4096;

/// The two keys that every node has. They are unrelated: neither is derived from the other.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    pub node: SecretKey,
    pub kem: KemSecret,
}

/// How an admin key lies on disk.
#[derive(Clone)]
pub enum Protection {
    /// Sealed with Argon2id and ChaCha20-Poly1305.
    Passphrase(Zeroizing<String>),
    /// As it is: whoever reads the file is an admin.
    None,
}

impl std::fmt::Debug for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(…)",
            Self::None => "None",
        })
    }
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("key file {path}: cannot {tried}: {source}; check who owns it, and the disk")]
    Io { path: PathBuf, tried: &'static str, source: io::Error },
    #[error("key file {path} can be read by others on this machine; run: chmod 600 {path}")]
    TooOpen { path: PathBuf },
    #[error("key file {path} is damaged: {why}; restore it from a backup")]
    Damaged { path: PathBuf, why: &'static str },
    #[error("key file {path}: {source}; restore it from a backup")]
    Admin { path: PathBuf, source: BadKeyFile },
    #[error(
        "{path} is missing while node.key is there; restore it from a backup, or move node.key away to begin as a new node"
    )]
    HalfGone { path: PathBuf },
    #[error("there is no admin key on this machine ({path}); run this on the machine that has it")]
    NoAdminKey { path: PathBuf },
    #[error("the admin key {path} is sealed; give its passphrase with --passphrase-file")]
    NeedsPassphrase { path: PathBuf },
    #[error("the admin key {path} does not open: {source}; give it again, or the file back from a backup")]
    DoesNotOpen { path: PathBuf, source: OpenKeyError },
    #[error("an empty passphrase protects nothing; give a longer one, or say --no-passphrase")]
    EmptyPassphrase,
}

/// Loads the node's keys from `DIR/keys`, or makes them at the first start.
///
/// # Errors
/// When a file is damaged, open to others, or cannot be read or written.
pub fn load_or_create(dir: &Path) -> Result<NodeKeys, KeysError> {
    let dir = keys_dir(dir)?;
    next::finish(&dir)?;
    load_or_create_in(&dir)
}

fn load_or_create_in(dir: &Path) -> Result<NodeKeys, KeysError> {
    let (node_path, kem_path) = (dir.join("node.key"), dir.join("kem.key"));
    let node = read_secret(&node_path, "node")?;
    let kem = read_secret(&kem_path, "kem")?;
    // The KEM key is written first: only a node key without one is a loss.
    let kem = match (kem, &node) {
        (Some(kem), _) => KemSecret::from_bytes(&kem),
        (None, Some(_)) => return Err(KeysError::HalfGone { path: kem_path }),
        (None, None) => {
            let kem = KemSecret::generate();
            write(&kem_path, &secret_text("kem", &kem.to_bytes()))?;
            kem
        }
    };
    let node = match node {
        Some(seed) => SecretKey::from_seed(&seed),
        None => {
            let node = SecretKey::generate();
            write(&node_path, &secret_text("node", &node.to_seed()))?;
            node
        }
    };
    Ok(NodeKeys { node, kem })
}

/// The file that may hold a studio admin's key.
#[derive(Clone, Debug)]
pub(super) struct AdminFile {
    path: PathBuf,
}

impl AdminFile {
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: dir.join("keys/admin.key") }
    }

    /// Reads the file, if there is one.
    pub(super) fn read(&self) -> Result<Option<KeyFile>, KeysError> {
        let Some(bytes) = read_private(&self.path)? else { return Ok(None) };
        KeyFile::parse(&bytes)
            .map(Some)
            .map_err(|source| KeysError::Admin { path: self.path.clone(), source })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the key is sealed, and the key itself when it is not.
    pub(super) fn unsealed(&self) -> Result<(bool, Option<SecretKey>), KeysError> {
        Ok(match self.read()? {
            Some(KeyFile::Plain(key)) => (false, Some(key)),
            Some(KeyFile::Sealed(_)) => (true, None),
            None => (false, None),
        })
    }

    /// The public half of the key that is here; readable without its passphrase.
    pub(super) fn public(&self) -> Result<Option<PublicKey>, KeysError> {
        Ok(self.read()?.map(|file| file.public()))
    }

    /// Opens the key. Takes about 0.2 s of one core when it is sealed.
    pub(super) fn unlock(&self, passphrase: Option<&str>) -> Result<SecretKey, KeysError> {
        let path = || self.path.clone();
        match (self.read()?, passphrase) {
            (None, _) => Err(KeysError::NoAdminKey { path: path() }),
            (Some(KeyFile::Plain(key)), _) => Ok(key),
            (Some(KeyFile::Sealed(_)), None) => Err(KeysError::NeedsPassphrase { path: path() }),
            (Some(KeyFile::Sealed(sealed)), Some(passphrase)) => sealed
                .open(passphrase.as_bytes())
                .map_err(|source| KeysError::DoesNotOpen { path: path(), source }),
        }
    }

    /// Makes `key` the one that is here. Another one is moved aside; gives where to.
    pub(super) fn install(
        &self,
        key: &SecretKey,
        protection: &Protection,
    ) -> Result<Option<PathBuf>, KeysError> {
        let text = match protection {
            Protection::Passphrase(text) if text.is_empty() => return Err(KeysError::EmptyPassphrase),
            Protection::Passphrase(text) => Zeroizing::new(keyfile::seal(key, text.as_bytes())),
            Protection::None => keyfile::write_plain(key),
        };
        let aside = self.public()?.filter(|other| *other != key.public());
        let aside =
            aside.map(|other| self.path.with_file_name(format!("admin-{}.key", &other.to_string()[..16])));
        if let Some(aside) = &aside {
            let failed = |source| KeysError::Io { path: self.path.clone(), tried: "move it aside", source };
            std::fs::rename(&self.path, aside).map_err(failed)?;
        }
        write(&self.path, &text)?;
        Ok(aside)
    }

    /// The key that is here, or a new one, with this protection: an open key is sealed when a passphrase is given, a
    /// sealed one needs its own.
    pub(super) fn unlock_or_create(&self, protection: &Protection) -> Result<SecretKey, KeysError> {
        let passphrase = match protection {
            Protection::Passphrase(text) if text.is_empty() => return Err(KeysError::EmptyPassphrase),
            Protection::Passphrase(text) => Some(text.as_str()),
            Protection::None => None,
        };
        let key = match (self.read()?, passphrase) {
            (Some(KeyFile::Plain(key)), Some(_)) => key,
            (Some(_), _) => return self.unlock(passphrase),
            (None, _) => SecretKey::generate(),
        };
        match passphrase {
            Some(text) => write(&self.path, &Zeroizing::new(keyfile::seal(&key, text.as_bytes())))?,
            None => write(&self.path, &keyfile::write_plain(&key))?,
        }
        Ok(key)
    }
}

fn keys_dir(dir: &Path) -> Result<PathBuf, KeysError> {
    let dir = dir.join("keys");
    platform::create_private_dir(&dir).map_err(|source| KeysError::Io {
        path: dir.clone(),
        tried: "create the directory",
        source,
    })?;
    Ok(dir)
}

fn secret_text(kind: &str, secret: &[u8; 32]) -> Zeroizing<String> {
    let digits = Zeroizing::new(HEXLOWER.encode(secret));
    Zeroizing::new(format!("scenemesh {kind} key 1\nsecret {}\n", digits.as_str()))
}

fn read_secret(path: &Path, kind: &str) -> Result<Option<Zeroizing<[u8; 32]>>, KeysError> {
    let Some(bytes) = read_private(path)? else { return Ok(None) };
    let damaged = |why| KeysError::Damaged { path: path.to_owned(), why };
    let text = str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(format!("scenemesh {kind} key 1").as_str()) {
        return Err(damaged("its first line is another"));
    }
    let digits = lines.next().and_then(|line| line.strip_prefix("secret "));
    let secret = digits
        .and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok())
        .map(Zeroizing::new)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .map(Zeroizing::new);
    match (secret, lines.next()) {
        (Some(secret), None) => Ok(Some(secret)),
        (Some(_), Some(_)) => Err(damaged("something follows the key")),
        (None, _) => Err(damaged("its second line is not a key")),
    }
}

fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
    let failed = |tried| move |source| KeysError::Io { path: path.to_owned(), tried, source };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open it"))?,
    };
    if !platform::is_private(&file).map_err(failed("read its permissions"))? {
        return Err(KeysError::TooOpen { path: path.to_owned() });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LIMIT as usize + 1));
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed("read it"))?;
    Ok(Some(bytes))
}

fn write(path: &Path, text: &str) -> Result<(), KeysError> {
    let failed = |tried| move |source| KeysError::Io { path: path.to_owned(), tried, source };
    platform::replace_file(path, text.as_bytes()).map_err(failed("write it"))?;
    let dir = path.parent().unwrap_or(path);
    platform::sync_dir(dir).map_err(failed("make its directory durable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Protection {
        Protection::Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn node_keys_are_made_once_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(dir.path()).unwrap();
        let read = load_or_create(dir.path()).unwrap();
        assert_eq!(made.node.public(), read.node.public());
        assert_eq!(made.kem.public(), read.kem.public());
        assert_ne!(made.node.to_seed(), made.kem.to_bytes());
    }

    #[cfg(unix)]
    #[test]
    fn key_files_are_private_or_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        AdminFile::of(dir.path()).unlock_or_create(&Protection::None).unwrap();
        let keys = dir.path().join("keys");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        for name in ["node.key", "kem.key", "admin.key"] {
            assert_eq!(mode(&keys.join(name)), 0o600, "{name}");
        }
        let node = keys.join("node.key");
        std::fs::set_permissions(&node, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, KeysError::TooOpen { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_or_half_gone_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let kem = dir.path().join("keys/kem.key");
        let text = std::fs::read_to_string(&kem).unwrap();
        platform::replace_file(&kem, &text.as_bytes()[..40]).unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(KeysError::Damaged { .. })));
        std::fs::remove_file(&kem).unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(KeysError::HalfGone { .. })));
    }

    #[test]
    fn an_admin_key_opens_with_its_passphrase_and_is_reused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let admin = AdminFile::of(dir.path());
        assert!(matches!(admin.unlock(None), Err(KeysError::NoAdminKey { .. })));
        assert!(matches!(admin.unlock_or_create(&passphrase("")), Err(KeysError::EmptyPassphrase)));
        let key = admin.unlock_or_create(&passphrase("correct horse")).unwrap();
        assert_eq!(admin.public().unwrap(), Some(key.public()));
        assert!(matches!(admin.unlock(None), Err(KeysError::NeedsPassphrase { .. })));
        assert!(matches!(admin.unlock(Some("wrong")), Err(KeysError::DoesNotOpen { .. })));
        let again = admin.unlock_or_create(&passphrase("correct horse")).unwrap();
        assert_eq!(again.public(), key.public());
        assert!(matches!(admin.unlock_or_create(&Protection::None), Err(KeysError::NeedsPassphrase { .. })));
        let debugged = format!("{:?} {key:?}", passphrase("correct horse"));
        assert!(!debugged.contains("horse"), "{debugged}");
    }

    #[test]
    fn an_open_admin_key_is_sealed_by_the_first_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        let admin = AdminFile::of(dir.path());
        let key = admin.unlock_or_create(&Protection::None).unwrap();
        assert_eq!(admin.unlock(None).unwrap().public(), key.public());
        let sealed = admin.unlock_or_create(&passphrase("correct horse")).unwrap();
        assert_eq!(sealed.public(), key.public());
        assert!(matches!(admin.unlock(None), Err(KeysError::NeedsPassphrase { .. })));
    }
}
