//! Links: TCP, Noise, Yamux and substreams under any key, member or not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identify, noise, ping, request_response, tcp, yamux,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bytes::{Frame, Id, read_frame, send};
use super::keys::Key;
use super::questions::{self, Question};

/// Longer than any answer takes; whatever waits beyond this will not come.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// Name of the porch's protocol.
pub const PORCH: &str = "/scenemesh/porch/1";

/// Names of the control and the blob protocol of a pool.
pub fn control_of(pool: &Id) -> String {
    format!("/scenemesh/{}/control/1", data_encoding::HEXLOWER.encode(&pool[..4]))
}

pub fn blob_of(pool: &Id) -> String {
    format!("/scenemesh/{}/blob/1", data_encoding::HEXLOWER.encode(&pool[..4]))
}

/// The PeerId that an Ed25519 key is.
///
/// # Errors
/// When the bytes are no key.
pub fn peer_of(node: &[u8; 32]) -> Result<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(node)?;
    Ok(libp2p::identity::PublicKey::from(key).to_peer_id())
}

/// The Ed25519 key that a PeerId holds: identity multihash of a protobuf with the key at its end.
pub fn node_of(peer: &PeerId) -> Option<[u8; 32]> {
    peer.to_bytes().last_chunk::<32>().copied()
}

/// The key behind a node's name in text.
///
/// # Errors
/// When it is no PeerId of an Ed25519 key.
pub fn node_of_text(text: &str) -> Result<[u8; 32]> {
    node_of(&text.parse()?).context("a PeerId that holds a key")
}

/// The Noise, Yamux and identity that every node has, and a door for substreams.
#[derive(NetworkBehaviour)]
pub(super) struct Wires {
    streams: libp2p_stream::Behaviour,
    questions: Toggle<questions::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

enum Command {
    Dial { node: PeerId, address: Multiaddr, done: oneshot::Sender<Result<(), String>> },
    Listen { done: oneshot::Sender<Result<Multiaddr, String>> },
    Hang { node: PeerId },
}

/// A swarm and what drives it. Dropping it closes every link.
#[derive(Debug)]
pub struct Link {
    commands: mpsc::Sender<Command>,
    control: Control,
    links: watch::Receiver<BTreeMap<PeerId, usize>>,
    _driving: JoinSet<()>,
}

/// Opens and accepts substreams.
#[derive(Clone)]
pub struct Control(libp2p_stream::Control);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// # Errors
    /// When somebody accepts this protocol already.
    pub fn accept(&mut self, protocol: &str) -> Result<libp2p_stream::IncomingStreams> {
        Ok(self.0.accept(name(protocol)?)?)
    }

    /// Opens a substream.
    ///
    /// # Errors
    /// When the other side does not take it.
    pub async fn open(&mut self, node: &[u8; 32], protocol: &str) -> Result<Stream> {
        let opening = self.0.open_stream(peer_of(node)?, name(protocol)?);
        timeout(PATIENCE, opening).await.context("opening a substream")?.map_err(|error| anyhow!("{error}"))
    }

    /// Sends bytes on a substream of their own and reads one frame back.
    ///
    /// # Errors
    /// When no frame comes back.
    pub async fn exchange(&mut self, node: &[u8; 32], protocol: &str, bytes: &[u8]) -> Result<Frame> {
        let mut stream = self.open(node, protocol).await?;
        send(&mut stream, bytes).await?;
        timeout(PATIENCE, read_frame(&mut stream)).await.context("waiting for an answer")?
    }
}

fn name(protocol: &str) -> Result<StreamProtocol> {
    Ok(StreamProtocol::try_from_owned(protocol.to_owned())?)
}

impl Link {
    /// A swarm under `key` that listens nowhere and knows nobody. It hears no questions.
    ///
    /// # Errors
    /// When the key is none.
    pub fn new(key: &Key) -> Result<Self> {
        Ok(Self::begin(key, None)?.0)
    }

    /// The same, with the questions that nodes of a pool ask it.
    ///
    /// # Errors
    /// When the key is none.
    pub fn of_member(key: &Key, pool: &Id) -> Result<(Self, mpsc::Receiver<Question>)> {
        Self::begin(key, Some(pool))
    }

    fn begin(key: &Key, pool: Option<&Id>) -> Result<(Self, mpsc::Receiver<Question>)> {
        let keypair = Keypair::ed25519_from_bytes(key.seed())?;
        let swarm = swarm(&keypair, pool)?;
        let control = Control(swarm.behaviour().streams.new_control());
        let (commands, inbox) = mpsc::channel(64);
        let (tell, links) = watch::channel(BTreeMap::new());
        let mut driving = JoinSet::new();
        let (asked, questions) = questions::channel();
        driving.spawn(drive(swarm, inbox, tell, asked));
        Ok((Self { commands, control, links, _driving: driving }, questions))
    }

    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Connects to a node at an address, and returns when the handshake is through.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub async fn dial(&self, node: &[u8; 32], address: &str) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let command = Command::Dial { node: peer_of(node)?, address: address.parse()?, done };
        self.commands.send(command).await.map_err(|_| anyhow!("the swarm is gone"))?;
        timeout(PATIENCE, answer).await.context("dialling")??.map_err(|words| anyhow!("{words}"))
    }

    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn listen(&self) -> Result<String> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Listen { done }).await.map_err(|_| anyhow!("the swarm is gone"))?;
        let address =
            timeout(PATIENCE, answer).await.context("listening")??.map_err(|words| anyhow!("{words}"))?;
        Ok(address.to_string())
    }

    /// Closes every link to a node.
    ///
    /// # Errors
    /// When the swarm is gone.
    pub async fn hang_up(&self, node: &[u8; 32]) -> Result<()> {
        let command = Command::Hang { node: peer_of(node)? };
        self.commands.send(command).await.map_err(|_| anyhow!("the swarm is gone"))?;
        self.closed(node).await
    }

    /// How many links there are to a node.
    ///
    /// # Errors
    /// When the bytes are no key.
    pub fn count(&self, node: &[u8; 32]) -> Result<usize> {
        Ok(self.links.borrow().get(&peer_of(node)?).copied().unwrap_or(0))
    }

    /// Waits until there is no link to a node.
    ///
    /// # Errors
    /// When one stays.
    pub async fn closed(&self, node: &[u8; 32]) -> Result<()> {
        let peer = peer_of(node)?;
        let mut links = self.links.clone();
        let gone = links.wait_for(|links| !links.contains_key(&peer));
        timeout(PATIENCE, gone).await.context("the link stays open")??;
        Ok(())
    }

    /// Sends bytes on a substream of their own and reads one frame back.
    ///
    /// # Errors
    /// When no frame comes back.
    pub async fn exchange(&self, node: &[u8; 32], protocol: &str, bytes: &[u8]) -> Result<Frame> {
        self.control().exchange(node, protocol, bytes).await
    }
}

fn swarm(keypair: &Keypair, pool: Option<&Id>) -> Result<Swarm<Wires>> {
    let identify = identify::Config::new("/scenemesh/1".into(), keypair.public());
    let wires = Wires {
        streams: libp2p_stream::Behaviour::new(),
        questions: questions::behaviour(pool)?,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(5))),
    };
    Ok(libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| wires)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build())
}

async fn drive(
    mut swarm: Swarm<Wires>,
    mut inbox: mpsc::Receiver<Command>,
    tell: watch::Sender<BTreeMap<PeerId, usize>>,
    asked: mpsc::Sender<Question>,
) {
    let mut answers = FuturesUnordered::new();
    let mut dials: BTreeMap<ConnectionId, oneshot::Sender<Result<(), String>>> = BTreeMap::new();
    let mut listening: Option<oneshot::Sender<Result<Multiaddr, String>>> = None;
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Dial { node, address, done }) => {
                    let options = DialOpts::peer_id(node)
                        .condition(PeerCondition::Always)
                        .addresses(vec![address])
                        .allocate_new_port()
                        .build();
                    let id = options.connection_id();
                    match swarm.dial(options) {
                        Ok(()) => drop(dials.insert(id, done)),
                        Err(error) => drop(done.send(Err(error.to_string()))),
                    }
                }
                Some(Command::Listen { done }) => {
                    let any = "/ip4/127.0.0.1/tcp/0".parse().expect("an address");
                    match swarm.listen_on(any) {
                        Ok(_) => listening = Some(done),
                        Err(error) => drop(done.send(Err(error.to_string()))),
                    }
                }
                Some(Command::Hang { node }) => drop(swarm.disconnect_peer_id(node)),
            },
            Some((channel, answer)) = answers.next() => {
                // A question that is dropped is a substream that ends without an answer.
                if let (Ok(bytes), Some(questions)) = (answer, swarm.behaviour_mut().questions.as_mut()) {
                    drop(questions.send_response(channel, bytes));
                }
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(WiresEvent::Questions(request_response::Event::Message {
                    peer,
                    message: request_response::Message::Request { request, channel, .. },
                    ..
                })) => {
                    let (answer, later) = oneshot::channel();
                    drop(asked.try_send(Question { from: peer, frame: request, answer }));
                    answers.push(later.map(|answer| (channel, answer)));
                }
                SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                    tell.send_modify(|links| *links.entry(peer_id).or_default() += 1);
                    if let Some(done) = dials.remove(&connection_id) {
                        drop(done.send(Ok(())));
                    }
                }
                SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                    tell.send_modify(|links| {
                        if num_established == 0 {
                            links.remove(&peer_id);
                        } else {
                            links.insert(peer_id, num_established as usize);
                        }
                    });
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(done) = dials.remove(&connection_id) {
                        drop(done.send(Err(error.to_string())));
                    }
                }
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(done) = listening.take() {
                        drop(done.send(Ok(address)));
                    }
                }
                _ => {}
            },
        }
    }
}

/// Gives an error when a stranger was let in after all.
///
/// # Errors
/// When `answer` is an answer.
pub fn must_fail<T: std::fmt::Debug>(what: &str, answer: Result<T>) -> Result<String> {
    match answer {
        Ok(answer) => bail!("{what} was answered: {answer:?}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
