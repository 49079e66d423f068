//! Who has a token: the daemon's own user by `api.json`, anew with every start, and users of this machine by a token
//! each, kept as hashes in `users.toml`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use scenemesh_protocol::api::{
    ErrorCode, Role, UserRemoveRequest, UserReply, UserRequest, UserView, UsersReply,
};
use scenemesh_protocol::ids::random_bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Node;
use super::body::Asked;
use super::trouble::Trouble;
use crate::clock;
use crate::messages::Message;
use crate::platform;

/// Tokens of one node; a machine that renders has a handful of people at it.
const MOST: usize = 256;
/// Longest name, in bytes.
const NAME: usize = 80;
/// Largest file that is read.
const FILE_LIMIT: u64 = 256 << 10;

/// What a token opens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Comparing hashes takes the same time whatever the difference is.
    pub(super) hash: blake3::Hash,
    pub(super) role: Role,
    /// In the studio's books.
    pub(super) person: Arc<str>,
    since_ms: u64,
}

/// All tokens but the daemon's own user's, as the file has them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    role: Role,
    /// BLAKE3 of the token, in hexadecimal.
    token: String,
    since_ms: u64,
}

/// The tokens that open this node's API.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    owner: Token,
    told: watch::Sender<Arc<Vec<Token>>>,
    /// Held by whoever changes the file, never while anything waits.
    turn: Mutex<()>,
}

impl Users {
    /// Reads who has a token; `token` is the daemon's own user's.
    ///
    /// # Errors
    /// When the file is damaged, readable by others, or cannot be read.
    pub(super) fn open(dir: &Path, token: &str, person: &str) -> io::Result<Self> {
        let path = dir.join("users.toml");
        let owner = Token { hash: hash(token), role: Role::Admin, person: person.into(), since_ms: 0 };
        let users = read(&path)?;
        let all = std::iter::once(owner.clone()).chain(users).collect();
        Ok(Self { path, owner, told: watch::channel(Arc::new(all)).0, turn: Mutex::default() })
    }

    /// Everybody who may ask, as it changes.
    pub(super) fn tokens(&self) -> watch::Receiver<Arc<Vec<Token>>> {
        self.told.subscribe()
    }

    fn named(&self) -> Vec<Token> {
        self.told.borrow().iter().skip(1).cloned().collect()
    }

    /// Changes the list on disk, then for everybody who asks from now on.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Token>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut users = self.named();
        let done = change(&mut users)?;
        users.sort_by(|a, b| a.person.cmp(&b.person));
        let line = |user: &Token| Line {
            name: user.person.to_string(),
            role: user.role,
            token: user.hash.to_hex().to_string(),
            since_ms: user.since_ms,
        };
        let file = File { user: users.iter().map(line).collect() };
        let text = toml::to_string(&file).map_err(|error| Trouble::broke(&error))?;
        platform::replace_file(&self.path, text.as_bytes()).map_err(|error| Trouble::broke(&error))?;
        if let Some(dir) = self.path.parent() {
            platform::sync_dir(dir).map_err(|error| Trouble::broke(&error))?;
        }
        let all = std::iter::once(self.owner.clone()).chain(users).collect();
        self.told.send_replace(Arc::new(all));
        Ok(done)
    }
}

#[cfg(test)]
impl Users {
    pub(super) fn add(&self, token: &str, role: Role, person: &str) {
        let new = Token { hash: hash(token), role, person: person.into(), since_ms: 0 };
        self.change(|all| {
            all.push(new);
            Ok(())
        })
        .unwrap();
    }

    pub(super) fn remove(&self, person: &str) {
        self.change(|all| {
            all.retain(|user| *user.person != *person);
            Ok(())
        })
        .unwrap();
    }
}

fn hash(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

fn read(path: &Path) -> io::Result<Vec<Token>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    if !platform::is_private(&file)? {
        return Err(io::Error::other("others on this machine can read it; run chmod 600 on it"));
    }
    let mut text = String::new();
    file.take(FILE_LIMIT).read_to_string(&mut text)?;
    let file: File = toml::from_str(&text).map_err(io::Error::other)?;
    let token = |line: Line| {
        let hash = blake3::Hash::from_hex(&line.token).map_err(io::Error::other)?;
        Ok(Token { hash, role: line.role, person: line.name.into(), since_ms: line.since_ms })
    };
    file.user.into_iter().take(MOST).map(token).collect()
}

/// A fresh token: 256 bits, in letters and digits.
pub(super) fn fresh_token() -> String {
    data_encoding::BASE32_NOPAD.encode(&random_bytes::<32>()).to_lowercase()
}

fn view(token: &Token) -> UserView {
    UserView { name: token.person.to_string(), role: token.role, since_ms: token.since_ms }
}

fn unknown(name: &str) -> Trouble {
    let name = name.chars().take(NAME).collect();
    Trouble::new(ErrorCode::NotFound, &Message::NoSuchUser { name }).hint(&Message::HintUsers)
}

pub(super) async fn list(State(node): State<Node>) -> Json<UsersReply> {
    Json(UsersReply { users: node.users.named().iter().map(view).collect() })
}

/// Does a change where files may be waited for.
async fn changed<T: Send + 'static>(
    node: &Node,
    change: impl FnOnce(&mut Vec<Token>) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let users = node.users.clone();
    node.tasks.blocking(move || users.change(change)).await.map_err(|_| Trouble::stopping())?
}

pub(super) async fn add(
    State(node): State<Node>,
    Asked(asked): Asked<UserRequest>,
) -> Result<Json<UserReply>, Trouble> {
    let UserRequest { name, role } = asked;
    let fits =
        !name.is_empty() && name.len() <= NAME && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if !fits {
        let given = name.chars().take(NAME).collect();
        return Err(
            Trouble::new(ErrorCode::Usage, &Message::BadUserName { given }).hint(&Message::HintUserName)
        );
    }
    let token = fresh_token();
    let new = Token { hash: hash(&token), role, person: name.as_str().into(), since_ms: clock::wall_ms() };
    let owner = node.users.owner.person.clone();
    changed(&node, move |users| {
        if new.person == owner || users.iter().any(|user| user.person == new.person) {
            let message = Message::UserHasToken { name: new.person.to_string() };
            return Err(Trouble::new(ErrorCode::Conflict, &message).hint(&Message::HintUserAgain));
        }
        if users.len() >= MOST {
            return Err(Trouble::new(ErrorCode::Refused, &Message::TooManyUsers).hint(&Message::HintUsers));
        }
        users.push(new);
        Ok(())
    })
    .await?;
    Ok(Json(UserReply { name, role, token, url: node.url.to_string() }))
}

pub(super) async fn set(
    State(node): State<Node>,
    Asked(asked): Asked<UserRequest>,
) -> Result<Json<UserView>, Trouble> {
    let set = changed(&node, move |users| {
        let user = users.iter_mut().find(|user| *user.person == *asked.name);
        let user = user.ok_or_else(|| unknown(&asked.name))?;
        user.role = asked.role;
        Ok(view(user))
    });
    set.await.map(Json)
}

pub(super) async fn remove(
    State(node): State<Node>,
    Asked(asked): Asked<UserRemoveRequest>,
) -> Result<Json<UserView>, Trouble> {
    let removed = changed(&node, move |users| {
        let at = users.iter().position(|user| *user.person == *asked.name);
        Ok(view(&users.remove(at.ok_or_else(|| unknown(&asked.name))?)))
    });
    removed.await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_as_hashes_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::open(dir.path(), "owner", "kim").unwrap();
        let mina =
            Token { hash: hash("secret of mina"), role: Role::Submit, person: "mina".into(), since_ms: 7 };
        users
            .change(|all| {
                all.push(mina.clone());
                Ok(())
            })
            .unwrap();
        let text = std::fs::read_to_string(dir.path().join("users.toml")).unwrap();
        assert!(!text.contains("secret of mina") && text.contains("mina"), "{text}");
        let again = Users::open(dir.path(), "another", "kim").unwrap();
        assert_eq!(again.named(), [mina]);
        assert_eq!(again.tokens().borrow()[0].hash, hash("another"));
        again
            .change(|all| {
                all.clear();
                Ok(())
            })
            .unwrap();
        assert!(Users::open(dir.path(), "x", "kim").unwrap().named().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_or_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let users = Users::open(dir.path(), "owner", "kim").unwrap();
        users.change(|_| Ok(())).unwrap();
        let path = dir.path().join("users.toml");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Users::open(dir.path(), "owner", "kim").unwrap_err().to_string().contains("chmod 600"));
        platform::replace_file(&path, b"user = 1").unwrap();
        assert!(Users::open(dir.path(), "owner", "kim").is_err(), "a damaged file is not passed over");
    }
}
