//! PURE: how a studio's own records get into the state, and to its other machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::messages::{Decline, Done, Request, Response};
use scenemesh_protocol::roster::Added;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{StudioDiff, StudioKey, StudioRecord, StudioSecret, StudioSync};

use super::super::state::{Fact, State, Step, declined};
use super::{Home, OwnProject, OwnStudio, RefusedStudioRecord};

impl State {
    pub(in crate::membership) fn home(&self, now_ms: u64) -> Option<Home<'_>> {
        let (roster, place) = (self.roster()?, self.place.as_ref()?);
        Some(Home { roster, studio: place.studio, now_ms })
    }

    /// Whether a node is a machine of this node's own studio now.
    pub(in crate::membership) fn is_sister(&self, node: &NodeId, now_ms: u64) -> bool {
        let Some(home) = self.home(now_ms) else { return false };
        home.roster.member(node, now_ms).is_some_and(|member| member.studio == home.studio)
    }

    /// Takes a journaled record again; whether it holds is judged when somebody looks.
    pub(in crate::membership) fn replay_shelved(&mut self, record: &StudioRecord) {
        // The dates of the journal are not judged by today's clock: what is over goes with the next tick.
        let at = match record {
            StudioRecord::Block(signed) => signed.verify().map(|block| block.issued_ms).unwrap_or_default(),
            StudioRecord::Project { .. } | StudioRecord::Key(_) => 0,
        };
        let mut shelf = self.shelf.clone();
        if let Some(home) = self.home(at) {
            // A record whose signer was revoked since is learnt again from nobody.
            drop(Arc::make_mut(&mut shelf).add(record, home));
        }
        self.shelf = shelf;
    }

    /// Secrets as they lie in the key files; what fits no key is not taken.
    pub(in crate::membership) fn replay_secrets(&mut self, secrets: BTreeMap<u32, StudioSecret>) {
        let shelf = Arc::make_mut(&mut self.shelf);
        for (version, secret) in secrets {
            shelf.add_secret(version, secret);
        }
    }

    /// Takes a record that was made here, to be journaled and told to the studio's machines.
    ///
    /// # Errors
    /// When it would not hold.
    pub(in crate::membership) fn publish(
        &mut self,
        record: &StudioRecord,
        now_ms: u64,
    ) -> Result<Step, RefusedStudioRecord> {
        let mut step = Step::default();
        self.shelve(record, now_ms, &mut step)?;
        Ok(step)
    }

    fn shelve(
        &mut self,
        record: &StudioRecord,
        now_ms: u64,
        step: &mut Step,
    ) -> Result<(), RefusedStudioRecord> {
        let mut shelf = self.shelf.clone();
        let home = self.home(now_ms).ok_or(RefusedStudioRecord::OtherStudio)?;
        if Arc::make_mut(&mut shelf).add(record, home)? == Added::New {
            step.facts.push(Fact::Shelved(record.clone()));
            step.studio.records.push(record.clone());
        }
        self.shelf = shelf;
        Ok(())
    }

    /// What a sister machine asks or tells.
    pub(in crate::membership) fn on_studio_request(
        &mut self,
        from: NodeId,
        request: Request,
        now_ms: u64,
    ) -> (Step, Response) {
        let mut step = Step::default();
        if !self.is_sister(&from, now_ms) {
            let words = "a studio's own records stay in that studio";
            return (step, declined(Decline::NotAllowed, words).into());
        }
        match request {
            Request::StudioSync(sync) => {
                let Some(home) = self.home(now_ms) else { return (step, StudioDiff::default().into()) };
                if self.shelf.lacks(&sync, home) {
                    step.ask_studio.push(from);
                }
                let diff = self.shelf.lacking(&sync, home);
                (step, diff.into())
            }
            Request::Studio(diff) => {
                self.on_studio_news(diff, now_ms, &mut step);
                (step, Done.into())
            }
            other => {
                let detail = format!("{} is not about the studio", other.name());
                (step, declined(Decline::Unsupported, detail).into())
            }
        }
    }

    /// A sister machine answered what is missing here.
    pub(in crate::membership) fn on_studio_synced(
        &mut self,
        from: NodeId,
        diff: StudioDiff,
        now_ms: u64,
    ) -> Step {
        let mut step = Step::default();
        if self.is_sister(&from, now_ms) {
            self.on_studio_news(diff, now_ms, &mut step);
            // The answer may have been cut at its limit: ask until nothing new comes.
            if !step.studio.is_empty() {
                step.ask_studio.push(from);
            }
        }
        step
    }

    fn on_studio_news(&mut self, diff: StudioDiff, now_ms: u64, step: &mut Step) {
        for record in &diff.records {
            if let Err(refused) = self.shelve(record, now_ms, step) {
                tracing::debug!(%refused, "a studio record is not taken");
            }
        }
        for (version, secret) in diff.secrets {
            if Arc::make_mut(&mut self.shelf).add_secret(version, secret.clone()) {
                step.secrets.push((version, secret.clone()));
                step.studio.secrets.push((version, secret));
            }
        }
    }

    pub(in crate::membership) fn studio_sync(&self, now_ms: u64) -> Option<StudioSync> {
        self.home(now_ms).map(|home| self.shelf.sync(home))
    }

    /// Makes the studio's first key, once its founder's admin key is unlocked here.
    pub(in crate::membership) fn found_studio_key(&mut self, step: &mut Step, now_ms: u64) {
        let founder = self.place.as_ref().is_some_and(|place| place.founder);
        let Some(home) = self.home(now_ms).filter(|_| founder) else { return };
        if self.shelf.keys(home).next().is_none() && self.is_member(now_ms) {
            self.make_studio_key(step, now_ms);
        }
    }

    /// Makes a new studio key, as after a revocation of one of the studio's machines: what is sealed from now on, the
    /// machine that is out does not read. Nothing happens while the admin key is locked; false says so.
    pub(in crate::membership) fn make_studio_key(&mut self, step: &mut Step, now_ms: u64) -> bool {
        let Some((admin, studio)) = self.admin_of().map(|(key, studio)| (key.clone(), studio)) else {
            return false;
        };
        let Some(pool) = self.roster().map(|roster| roster.pool()) else { return false };
        let (version, secret) = (self.shelf.next_key_version(), StudioSecret::generate());
        let key = StudioKey { pool, studio, version, kem: secret.kem().public(), issued_ms: now_ms };
        if self.shelve(&StudioRecord::Key(Signed::new(&key, &admin)), now_ms, step).is_err() {
            return false;
        }
        Arc::make_mut(&mut self.shelf).add_secret(version, secret.clone());
        step.secrets.push((version, secret.clone()));
        step.studio.secrets.push((version, secret));
        true
    }

    /// What holds now.
    pub(in crate::membership) fn own_studio_records(&self, now_ms: u64) -> OwnStudio {
        let Some(home) = self.home(now_ms) else { return OwnStudio::default() };
        let projects = self
            .shelf
            .projects(home)
            .map(|(rules, name)| (rules.project, OwnProject { name: name.clone(), rules: rules.clone() }));
        let held = self.shelf.keys(home).filter(|key| self.shelf.secrets.contains_key(&key.version));
        OwnStudio {
            home: Some((home.roster.pool(), home.studio)),
            projects: projects.collect(),
            blocks: self.shelf.blocks(home),
            key: self.shelf.keys(home).last().map(|key| **key),
            secrets: held.map(|key| (key.version, self.shelf.secrets[&key.version].clone())).collect(),
        }
    }
}
