//! What takes time and goes out of the house: pushes, questions, visits at porches. Each reports back once.

use futures::future::join_all;
use scenemesh_protocol::invite::{Invite, JoinRefusal};
use scenemesh_protocol::keys::SecretKey;
use scenemesh_protocol::studio::StudioDiff;

use super::super::joining::{JoinRefused, question};
use super::super::keys::Protection;
use super::*;

/// What an errand brought.
pub(super) enum Returned {
    /// A push went out, or a visit had nothing to tell.
    Nothing,
    Synced {
        peer: NodeId,
        diff: Option<RosterDiff>,
    },
    StudioSynced {
        peer: NodeId,
        diff: Option<StudioDiff>,
    },
    Visited {
        peer: NodeId,
        /// What shows that this node was revoked or exchanged, if it was.
        proof: RosterDiff,
        regard: Option<Regard>,
    },
    /// The answer to a pending join.
    Questioned {
        asked: Box<Asked>,
        reply: Result<JoinReply, String>,
    },
    Knocked {
        knocked: Box<Result<Knocked, JoinError>>,
        /// Leaves so far when it was sent out: whoever left meanwhile gave it up.
        leaves: u64,
        answer: Answer<JoinOutcome, JoinError>,
    },
}

/// A first answer to a join.
pub(super) struct Knocked {
    pub(super) asked: Asked,
    pub(super) admin: Option<SecretKey>,
    pub(super) reply: JoinReply,
}

impl Actor {
    pub(super) fn has_errand_left(&self) -> bool {
        self.errands < ERRANDS
    }

    /// Sends an errand out; false when too many are out.
    pub(super) fn send_out(
        &mut self,
        name: &'static str,
        errand: impl Future<Output = Returned> + Send + 'static,
    ) -> bool {
        if !self.has_errand_left() {
            tracing::warn!(errand = name, "too many errands are out; this one is left to the next occasion");
            return false;
        }
        self.errands += 1;
        let (returned, stopping) = (self.returned.clone(), self.tasks.stopping());
        self.tasks.spawn(name, async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                // The channel holds all errands that can be out; an error means that the actor has stopped.
                back = errand => drop(returned.send(back).await),
            }
            Ok(())
        });
        true
    }

    /// Tells every connected member.
    pub(super) fn tell(&mut self, news: RosterDiff) {
        if !news.is_empty() {
            self.spread("roster news", self.up(), Request::Roster(news));
        }
    }

    /// Says the same to several. Whoever misses it is told at the next question.
    pub(super) fn spread(&mut self, name: &'static str, to: BTreeSet<NodeId>, news: Request) {
        if to.is_empty() {
            return;
        }
        let network = self.network.clone();
        self.send_out(name, async move {
            let told = to.into_iter().map(|peer| {
                let (network, news) = (network.clone(), news.clone());
                async move {
                    if let Err(error) = network.request(peer, news).await {
                        tracing::debug!(peer = %peer.short(), %error, "{name} was not delivered");
                    }
                }
            });
            join_all(told).await;
            Returned::Nothing
        });
    }

    /// Asks a member for what is missing here; one question per member at a time.
    pub(super) fn ask(&mut self, peer: NodeId) {
        let Some(circle) = &self.state.circle else { return };
        if !self.roster_questions.may_ask(&peer) {
            return;
        }
        let (network, sync): (_, RosterSync) = (self.network.clone(), circle.sync());
        let out = self.send_out("roster question", async move {
            let diff = match network.request(peer, Request::RosterSync(sync)).await {
                Ok(Response::Roster(diff)) => Some(diff),
                Ok(other) => {
                    tracing::debug!(peer = %peer.short(), answer = other.name(), "not an answer to RosterSync");
                    None
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "the roster was not compared");
                    None
                }
            };
            Returned::Synced { peer, diff }
        });
        if out {
            self.roster_questions.asked(peer);
        }
    }

    /// Shows this node's card at the porch of a member that does not know it.
    pub(super) fn visit(&mut self, peer: NodeId, mut addresses: Vec<String>, urgent: bool) {
        let now = Instant::now();
        let recent = self.visited.get(&peer).is_some_and(|at| now.duration_since(*at) < VISIT_PAUSE);
        if recent && !urgent {
            return;
        }
        let Some(card) = self.state.card() else { return };
        if let Some(asked) = self.state.asked.as_ref().filter(|asked| asked.inviter == peer) {
            addresses.splice(0..0, asked.addresses.iter().cloned());
        }
        self.visited.insert(peer, now);
        let (network, key) = (self.network.clone(), self.state.me.node.public());
        self.send_out("porch visit", async move {
            let proof = match network.porch_request(&addresses, peer, card).await {
                Ok(PorchResponse::Roster(proof)) => proof,
                Ok(_) => RosterDiff::default(),
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "this node's card was not shown");
                    return Returned::Nothing;
                }
            };
            let asked = PorchRequest::Standing(StandingGet { key });
            let regard = match network.porch_request(&addresses, peer, asked).await {
                Ok(PorchResponse::Standing(regard)) => Some(regard),
                _ => None,
            };
            Returned::Visited { peer, proof, regard }
        });
    }

    /// Asks the inviter again, while a join is pending.
    pub(super) fn question(&mut self) {
        let Some(asked) = self.state.pending_question(wall_ms()).cloned() else { return };
        let network = self.network.clone();
        self.questioned = Some(Instant::now());
        self.questioning = self.send_out("join question", async move {
            let request = PorchRequest::Join(asked.request.clone());
            let reply = match network.porch_request(&asked.addresses, asked.inviter, request).await {
                Ok(PorchResponse::Join(reply)) => Ok(reply),
                Ok(PorchResponse::Declined(declined)) => Err(declined.detail),
                Ok(other) => Err(format!("the inviter answered {}", other.name())),
                Err(error) => Err(error.to_string()),
            };
            Returned::Questioned { asked: Box::new(asked), reply }
        });
    }

    /// Knocks at an inviter's porch for the first time.
    pub(super) fn knock(
        &mut self,
        invite: Invite,
        name: String,
        protection: Option<Protection>,
        answer: Answer<JoinOutcome, JoinError>,
    ) {
        let (network, me) = (self.network.clone(), self.state.me.clone());
        let (file, tasks, leaves) = (self.admin_file.clone(), self.tasks.clone(), self.leaves);
        // Dropping the answer when too many errands are out tells the caller that the node is busy stopping.
        self.send_out("join", async move {
            let knocked = async {
                let first = question(&me, &invite, &name, None);
                let reply = knock_once(&network, &first).await?;
                let founds = matches!(&reply, JoinReply::Refused { reason: JoinRefusal::AdminKey, .. });
                let Some(protection) = protection.filter(|_| founds) else {
                    return Ok(Knocked { asked: first, admin: None, reply });
                };
                let admin = tasks
                    .blocking(move || file.unlock_or_create(&protection))
                    .await
                    .map_err(|_| JoinError::Stopping)??;
                let asked = question(&me, &invite, &name, Some(admin.public()));
                let reply = knock_once(&network, &asked).await?;
                Ok(Knocked { asked, admin: Some(admin), reply })
            };
            Returned::Knocked { knocked: Box::new(knocked.await), leaves, answer }
        });
    }

    pub(super) async fn on_returned(&mut self, returned: Returned) {
        let now_ms = wall_ms();
        match returned {
            Returned::Nothing => {}
            Returned::Synced { peer, diff } => {
                let again = self.roster_questions.answered(&peer);
                if let Some(diff) = diff {
                    let mut next = self.state.clone();
                    let step = next.on_synced(peer, diff, now_ms);
                    self.keep_or_log(next, step).await;
                }
                if again {
                    self.ask(peer);
                }
            }
            Returned::StudioSynced { peer, diff } => self.on_studio_synced(peer, diff).await,
            Returned::Visited { peer, proof, regard } => {
                if !proof.is_empty() {
                    let mut next = self.state.clone();
                    let mut step = Step::default();
                    next.on_news(peer, proof, now_ms, &mut step);
                    // Whoever showed this would not answer a question of ours.
                    step.ask.clear();
                    self.keep_or_log(next, step).await;
                }
                if let Some(Regard::Revoked { reason, .. }) = regard {
                    let words = format!("{} says that this node was revoked: {reason}", peer.short());
                    tracing::warn!("{words}");
                    self.state.warn(&words);
                }
            }
            Returned::Questioned { asked, reply } => {
                self.questioning = false;
                // Left or joined elsewhere meanwhile.
                if self.state.asked.as_ref() == Some(&*asked) {
                    self.on_questioned(*asked, reply, now_ms).await;
                }
            }
            Returned::Knocked { knocked, leaves, answer } => {
                let outcome = match *knocked {
                    Ok(_) if leaves != self.leaves => {
                        Err(JoinError::Declined("the join was given up".into()))
                    }
                    Ok(knocked) => self.on_knocked(knocked, now_ms).await,
                    Err(error) => Err(error),
                };
                // A caller that went away finds the standing later.
                drop(answer.send(outcome));
            }
        }
    }

    /// Where the inviter is, so that its link comes up without being looked for.
    async fn note_inviter(&self, inviter: NodeId, reply: &JoinReply) {
        if let JoinReply::Admitted { addresses, .. } = reply {
            self.network.add_addresses(inviter, addresses.iter().take(ADDRESSES).cloned().collect()).await;
        }
    }

    async fn on_questioned(&mut self, asked: Asked, reply: Result<JoinReply, String>, now_ms: u64) {
        match reply {
            Ok(reply) => {
                self.note_inviter(asked.inviter, &reply).await;
                let mut next = self.state.clone();
                let (step, outcome) = next.on_join_reply(asked, None, reply, now_ms);
                if !self.keep_or_log(next, step).await {
                    return;
                }
                match outcome {
                    Ok(JoinOutcome::Joined(joined)) => {
                        tracing::info!(pool = %joined.pool_name, studio = %joined.studio, "joined");
                        self.enter_or_log().await;
                    }
                    Ok(JoinOutcome::Pending { .. }) => {}
                    Err(JoinRefused { words, .. }) => {
                        let words = format!("the pending join was refused: {words}");
                        tracing::warn!("{words}");
                        self.state.warn(&words);
                    }
                }
            }
            Err(words) => {
                if let Some(wait) = &mut self.state.wait {
                    wait.words = format!("the inviter cannot be asked now: {words}");
                }
                self.show();
            }
        }
    }

    async fn on_knocked(&mut self, knocked: Knocked, now_ms: u64) -> Result<JoinOutcome, JoinError> {
        let Knocked { asked, admin, reply } = knocked;
        self.note_inviter(asked.inviter, &reply).await;
        let mut next = self.state.clone();
        let founds = admin.is_some();
        let (step, outcome) = next.on_join_reply(asked, admin, reply, now_ms);
        if founds {
            self.sealed = self.is_sealed().await;
        }
        self.keep(next, step).await?;
        match &outcome {
            Ok(JoinOutcome::Joined(_)) => self.enter_or_log().await,
            Ok(JoinOutcome::Pending { .. }) => self.open_porch().await,
            Err(_) => {}
        }
        Ok(outcome?)
    }
}

async fn knock_once(network: &Network, asked: &Asked) -> Result<JoinReply, JoinError> {
    let request = PorchRequest::Join(asked.request.clone());
    match network.porch_request(&asked.addresses, asked.inviter, request).await? {
        PorchResponse::Join(reply) => Ok(reply),
        PorchResponse::Declined(declined) => Err(JoinError::Declined(declined.detail)),
        other => Err(JoinError::Declined(format!("it answered {}", other.name()))),
    }
}
