//! Whole nodes in one process: real journals, real sockets on the loopback. Everything waits for facts.

use std::path::Path;

use scenemesh_protocol::ids::BootId;
use scenemesh_protocol::invite::{Invite, InviteSecret, JoinNeeds, JoinRefusal};
use scenemesh_protocol::roster::Roles;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::network::{self, Events, Identity, TaskEvent};
use crate::store;
use crate::supervisor::Supervisor;

/// Nothing here takes this long; a test that does has failed.
const SOON: Duration = Duration::from_secs(60);

/// Main and porch; zero takes a free one.
type Ports = (u16, u16);

/// A node that is away: what it comes back with.
struct Away {
    dir: TempDir,
    ports: Ports,
}

/// A running node.
struct Node {
    dir: TempDir,
    membership: Membership,
    network: Network,
    supervisor: Supervisor,
    _tasks: mpsc::Receiver<TaskEvent>,
}

impl Node {
    async fn fresh() -> Self {
        Self::start(Away { dir: tempfile::tempdir().unwrap(), ports: (0, 0) }).await
    }

    async fn start(away: Away) -> Self {
        let Away { dir, ports } = away;
        let supervisor = Supervisor::new(Duration::from_secs(10));
        let tasks = supervisor.tasks();
        let keys = keys::load_or_create(dir.path()).unwrap();
        let store_config = store::Config { quota: 1 << 30, reserve: 0, ..store::Config::at(dir.path()) };
        let (store, replay) = store::open(&store_config, &tasks).await.unwrap();
        let config = network::Config {
            listen: vec![format!("/ip4/127.0.0.1/tcp/{}", ports.0)],
            porch: vec![format!("/ip4/127.0.0.1/tcp/{}", ports.1)],
            mdns: false,
            porch_burst: 100,
            dir: Some(dir.path().to_owned()),
            ..network::Config::default()
        };
        let identity = Identity { key: keys.node.clone() };
        let (network, Events { tasks: task_events, roster }) =
            network::spawn(config, identity, BootId::random(), store.blobs.clone(), &tasks).unwrap();
        let config = Config {
            ask_every: Duration::from_millis(200),
            sync_every: Duration::from_secs(1),
            ..Config::at(dir.path())
        };
        let membership = spawn(config, keys, store, network.clone(), roster, &replay, &tasks).await.unwrap();
        Self { dir, membership, network, supervisor, _tasks: task_events }
    }

    /// It will come back at the addresses that it had.
    async fn stop(self) -> Away {
        let Self { dir, membership, network, supervisor, .. } = self;
        let listening = network.listening().borrow().clone();
        let ports = (port_of(&listening.main), port_of(&listening.porch));
        drop((membership, network));
        supervisor.run_until(std::future::ready(())).await.unwrap();
        Away { dir, ports }
    }

    async fn restart(self) -> Self {
        Self::start(self.stop().await).await
    }

    /// A pool of one studio, its admin key without a passphrase.
    async fn founder() -> Self {
        let node = Self::fresh().await;
        node.init(Protection::None).await.unwrap();
        node
    }

    async fn init(&self, protection: Protection) -> Result<Founded, InitError> {
        let founding = Founding {
            pool: "aurora".into(),
            studio: "amber".into(),
            name: "ws-00".into(),
            protection,
            solo: false,
        };
        self.membership.init(founding).await
    }

    async fn invite(&self, new_studio: Option<&str>) -> Result<Issued, InviteError> {
        self.invite_with(new_studio, None).await
    }

    async fn invite_with(
        &self,
        new_studio: Option<&str>,
        passphrase: Option<&str>,
    ) -> Result<Issued, InviteError> {
        self.porch().await;
        let terms = InviteTerms {
            roles: Roles::ALL,
            new_studio: new_studio.map(str::to_owned),
            expires: DEFAULT_EXPIRY,
        };
        self.membership.invite(terms, passphrase.map(|text| Zeroizing::new(text.to_owned()))).await
    }

    async fn join(
        &self,
        code: &str,
        name: &str,
        protection: Option<Protection>,
    ) -> Result<JoinOutcome, JoinError> {
        let joining = Joining { code: Zeroizing::new(code.to_owned()), name: name.into(), protection };
        self.membership.join(joining).await
    }

    async fn porch(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        timeout(SOON, listening.wait_for(|on| !on.porch.is_empty())).await.unwrap().unwrap().porch.clone()
    }

    async fn main(&self) -> Vec<String> {
        let mut listening = self.network.listening();
        timeout(SOON, listening.wait_for(|on| !on.main.is_empty())).await.unwrap().unwrap().main.clone()
    }

    fn id(&self) -> NodeId {
        keys::load_or_create(self.dir.path()).unwrap().node.public().node()
    }

    /// Waits until this node counts as a member and knows so many.
    async fn knows(&self, members: usize) -> Arc<Roster> {
        let mut standing = self.membership.standing();
        let is = |standing: &Arc<Standing>| match &**standing {
            Standing::Member { roster, .. } => roster.members(crate::clock::wall_ms()).count() == members,
            _ => false,
        };
        let seen = timeout(SOON, standing.wait_for(is)).await;
        match seen {
            Ok(standing) => match &**standing.unwrap() {
                Standing::Member { roster, .. } => roster.clone(),
                other => panic!("{other:?}"),
            },
            Err(_) => panic!("{:?}", *self.membership.standing().borrow()),
        }
    }

    async fn sees_up(&self, other: &Self) {
        let (mut peers, id) = (self.network.peers(), other.id());
        let up = timeout(SOON, peers.wait_for(|table| table.is_up(&id))).await;
        assert!(up.is_ok(), "{:?}", self.network.peers().borrow());
    }

    /// Waits until this node has the secret of the other's studio key.
    async fn has_the_key_of(&self, other: &Self) {
        let theirs = other.membership.studio().borrow().secrets.clone();
        assert_eq!(theirs.len(), 1);
        let mut studio = self.membership.studio();
        timeout(SOON, studio.wait_for(|own| own.secrets == theirs)).await.unwrap().unwrap();
    }

    async fn is_pending(&self) {
        let mut standing = self.membership.standing();
        let seen = standing.wait_for(|standing| matches!(**standing, Standing::Joining { .. }));
        timeout(SOON, seen).await.unwrap().unwrap();
    }
}

fn port_of(addresses: &[String]) -> u16 {
    let port = addresses.first().and_then(|address| address.rsplit('/').next()?.parse().ok());
    port.unwrap_or_default()
}

/// Two ports beside each other that are free now, as the defaults are: a porch is looked for there.
fn neighbours() -> Ports {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    let pair = std::iter::repeat_with(|| {
        let main = free(0).unwrap();
        let port = main.local_addr().unwrap().port();
        let porch = port.checked_add(1).and_then(|next| free(next).ok());
        porch.map(|_| (port, port + 1))
    });
    pair.flatten().next().unwrap()
}

fn joined(outcome: Result<JoinOutcome, JoinError>) -> Joined {
    match outcome {
        Ok(JoinOutcome::Joined(joined)) => joined,
        other => panic!("{other:?}"),
    }
}

fn refusal(outcome: Result<JoinOutcome, JoinError>) -> JoinRefused {
    match outcome {
        Err(JoinError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn key_file_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_and_both_come_back_after_a_restart() {
    let amber = Node::founder().await;
    let issued = amber.invite(None).await.unwrap();
    assert_eq!(issued.usable, 1);
    let second = Node::fresh().await;
    let outcome = joined(second.join(&issued.code, "ws-01", None).await);
    assert_eq!((outcome.studio.as_str(), outcome.notes.len()), ("amber", 0));
    amber.knows(2).await;
    second.sees_up(&amber).await;
    second.has_the_key_of(&amber).await;
    let second = second.restart().await;
    second.has_the_key_of(&amber).await;
    second.knows(2).await;
    second.sees_up(&amber).await;
    let amber = amber.restart().await;
    amber.knows(2).await;
    assert_eq!(key_file_names(second.dir.path()), ["kem.key", "node.key", "studio-1.key"]);
    let view = amber.membership.pool().await.unwrap();
    assert!(matches!(view.invites[0].state, InviteState::Used(node) if node == second.id()));
    amber.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_studio_joins_a_pool_of_one_and_admits_its_own() {
    let amber = Node::founder().await;
    let issued = amber.invite(Some("birch")).await.unwrap();
    let birch = Node::fresh().await;
    let refused = refusal(birch.join(&issued.code, "b-01", None).await);
    assert_eq!(refused.reason, Some(JoinRefusal::AdminKey), "{refused}");
    let outcome = joined(birch.join(&issued.code, "b-01", Some(Protection::None)).await);
    assert_eq!(outcome.studio, "birch");
    amber.knows(2).await;
    birch.sees_up(&amber).await;

    let issued = birch.invite(None).await.unwrap();
    let third = Node::fresh().await;
    assert_eq!(joined(third.join(&issued.code, "b-02", None).await).studio, "birch");
    for node in [&amber, &birch, &third] {
        assert_eq!(node.knows(3).await.settings().studios.len(), 2);
    }
    assert_eq!(key_file_names(birch.dir.path()), ["admin.key", "kem.key", "node.key", "studio-1.key"]);
    amber.stop().await;
    birch.stop().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_studios_invited_at_once_are_approved_and_both_get_in() {
    let amber = Node::founder().await;
    let birch = Node::fresh().await;
    let issued = amber.invite(Some("birch")).await.unwrap();
    joined(birch.join(&issued.code, "b-01", Some(Protection::None)).await);
    birch.sees_up(&amber).await;
    amber.sees_up(&birch).await;

    let (cedar, dogwood) = (Node::fresh().await, Node::fresh().await);
    let (for_cedar, for_dogwood) = tokio::join!(amber.invite(Some("cedar")), birch.invite(Some("dogwood")));
    let (for_cedar, for_dogwood) = (for_cedar.unwrap(), for_dogwood.unwrap());
    let (c, d) = tokio::join!(
        cedar.join(&for_cedar.code, "c-01", Some(Protection::None)),
        dogwood.join(&for_dogwood.code, "d-01", Some(Protection::None))
    );
    for outcome in [c, d] {
        let Ok(JoinOutcome::Pending { needs, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(needs, JoinNeeds::Approvals { have: 1, need: 2 });
    }
    let (cedar, amber) = (cedar.restart().await, amber.restart().await);
    cedar.is_pending().await;
    // It said goodbye, so that nobody looks for it, and it was never the one that dialled.
    amber.network.add_addresses(birch.id(), birch.main().await).await;
    amber.sees_up(&birch).await;

    // Each admin approves the other's studio; both at once, so that the settings may fork and heal.
    let approve = async |node: &Node, studio: &str| {
        let approved = async {
            loop {
                match node.membership.approve(Some(studio.into()), None).await {
                    Ok(approved) => break approved,
                    // The proposal is on its way.
                    Err(ApproveError::Cannot(CannotApprove::Nothing | CannotApprove::Unknown { .. })) => {
                        tokio::task::yield_now().await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        };
        timeout(SOON, approved).await.unwrap()
    };
    tokio::join!(approve(&birch, "cedar"), approve(&amber, "dogwood"));
    for node in [&amber, &birch, &cedar, &dogwood] {
        let roster = node.knows(4).await;
        let mut names: Vec<_> = roster.settings().studios.iter().map(|s| s.name.clone()).collect();
        names.sort_unstable();
        assert_eq!(names, ["amber", "birch", "cedar", "dogwood"]);
    }
    amber.stop().await;
    birch.stop().await;
    cedar.stop().await;
    dogwood.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_admitted_while_another_was_away() {
    let amber = Node::founder().await;
    let second = Node::fresh().await;
    let issued = amber.invite(None).await.unwrap();
    joined(second.join(&issued.code, "ws-01", None).await);
    amber.sees_up(&second).await;
    let away = second.stop().await;

    let third = Node::fresh().await;
    let issued = amber.invite(None).await.unwrap();
    joined(third.join(&issued.code, "ws-02", None).await);
    amber.knows(3).await;
    // The inviter goes; only the two are left, and the second has never heard of the third.
    let gone = amber.stop().await;
    let second = Node::start(Away { ports: neighbours(), ..away }).await;
    second.knows(2).await;
    third.network.add_addresses(second.id(), second.main().await).await;
    second.knows(3).await;
    second.sees_up(&third).await;
    drop(gone);
    second.stop().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_invites_are_told_apart() {
    let amber = Node::founder().await;
    let issued = amber.invite(None).await.unwrap();
    let second = Node::fresh().await;
    assert!(matches!(second.join("hello", "x", None).await, Err(JoinError::Code(BadInvite::NotAnInvite))));
    let cut = &issued.code[..issued.code.len() - 3];
    assert!(matches!(second.join(cut, "x", None).await, Err(JoinError::Code(BadInvite::Damaged))));
    let own = amber.join(&issued.code, "x", None).await;
    assert!(matches!(own, Err(JoinError::Cannot(CannotJoin::OwnInvite))), "{own:?}");
    let PoolView { pool, studio, .. } = amber.membership.pool().await.unwrap();
    let foreign = Invite::new(pool, amber.id(), studio, InviteSecret::generate(), amber.porch().await);
    let refused = refusal(second.join(&foreign.to_code(), "ws-01", None).await);
    assert_eq!(refused.reason, Some(JoinRefusal::UnknownInvite));
    let taken = refusal(second.join(&issued.code, "ws-00", None).await);
    assert_eq!(taken.reason, Some(JoinRefusal::NameTaken));
    joined(second.join(&issued.code, "ws-00-2", None).await);
    let third = Node::fresh().await;
    let used = refusal(third.join(&issued.code, "ws-02", None).await);
    assert_eq!(used.reason, Some(JoinRefusal::Used));
    // The porch is gone with its node.
    let late = amber.invite(None).await.unwrap();
    let gone = amber.stop().await;
    assert!(matches!(third.join(&late.code, "ws-02", None).await, Err(JoinError::Porch(_))));
    assert!(matches!(*third.membership.standing().borrow().clone(), Standing::Alone));
    drop(gone);
    second.stop().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_admin_key_locks_invites_over_a_restart() {
    let amber = Node::fresh().await;
    let sealed = || Protection::Passphrase(Zeroizing::new("correct horse".to_owned()));
    let founded = amber.init(sealed()).await.unwrap();
    assert!(founded.recovery_code.starts_with("smeshkey1"));
    assert!(matches!(amber.invite(None).await, Err(InviteError::Keys(KeysError::NeedsPassphrase { .. }))));
    let issued = amber.invite_with(None, Some("correct horse")).await.unwrap();
    let amber = amber.restart().await;
    let view = amber.membership.pool().await.unwrap();
    assert_eq!((view.invites[0].state, view.unlocked), (InviteState::Locked, false));
    let second = Node::fresh().await;
    let outcome = second.join(&issued.code, "ws-01", None).await;
    assert!(matches!(outcome, Ok(JoinOutcome::Pending { needs: JoinNeeds::Unlock, .. })), "{outcome:?}");
    let second = second.restart().await;
    second.is_pending().await;
    let wrong = amber.membership.unlock(Some(Zeroizing::new("wrong".into()))).await;
    assert!(matches!(wrong, Err(InviteError::Keys(KeysError::DoesNotOpen { .. }))), "{wrong:?}");
    assert_eq!(amber.membership.unlock(Some(Zeroizing::new("correct horse".into()))).await.unwrap(), 1);
    second.knows(2).await;
    amber.knows(2).await;
    // Its last invite is used: the key is wiped from memory again.
    assert!(!amber.membership.pool().await.unwrap().unlocked);
    amber.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_founds_nothing_and_leaving_forgets() {
    let first = Node::founder().await;
    assert!(matches!(first.init(Protection::None).await, Err(InitError::Cannot(CannotFound::InPool(_)))));
    let second = Node::fresh().await;
    assert!(matches!(second.membership.leave().await, Err(LeaveError::NoPool)));
    let issued = first.invite(None).await.unwrap();
    joined(second.join(&issued.code, "ws-01", None).await);
    second.sees_up(&first).await;
    let left = second.membership.leave().await.unwrap();
    assert_eq!(left, LeftPool { pool_name: Some("aurora".into()), told: 1, solo: false });
    assert!(second.membership.pool().await.is_none());
    let second = second.restart().await;
    assert!(matches!(*second.membership.standing().borrow().clone(), Standing::Alone));
    first.stop().await;
    second.stop().await;
}
