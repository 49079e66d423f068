//! What a studio knows for itself gets to its own machines, and to nobody else.

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{ProjectId, TaskId};
use scenemesh_protocol::messages::Decline;
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::{
    Memo, MemoPlace, Project, ProjectName, StudioDiff, StudioRecord, StudioSync,
};

use super::super::studio::OwnStudio;
use super::*;

impl Village {
    /// Pushes and questions between sister machines; whoever asks is asked whether it may.
    pub(super) fn spread_studio(
        &mut self,
        at: usize,
        news: &StudioDiff,
        ask: &[NodeId],
    ) -> Vec<(usize, Step)> {
        let (me, now_ms) = (self.id(at), self.now_ms);
        let mut work = Vec::new();
        for to in 0..self.nodes.len() {
            let sister = self.nodes[at].state.is_sister(&self.id(to), now_ms);
            if !news.is_empty() && sister && self.are_linked(at, to) {
                let (next, _) = self.nodes[to].state.on_request(me, Request::Studio(news.clone()), now_ms);
                work.push((to, next));
            }
        }
        for peer in ask {
            let Some(to) = self.at(peer).filter(|to| self.are_linked(at, *to)) else { continue };
            let Some(sync) = self.nodes[at].state.studio_sync(now_ms) else { continue };
            let (next, answer) = self.nodes[to].state.on_request(me, Request::StudioSync(sync), now_ms);
            work.push((to, next));
            if let Response::Studio(diff) = answer {
                work.push((at, self.nodes[at].state.on_studio_synced(*peer, diff, now_ms)));
            }
        }
        work
    }

    fn own(&self, at: usize) -> OwnStudio {
        self.nodes[at].state.own_studio_records(self.now_ms)
    }

    fn project(&self, at: usize, name: &str) -> StudioRecord {
        let (admin, studio) = self.nodes[at].state.admin_of().unwrap();
        let name = ProjectName::new(name);
        let project = Project {
            pool: self.roster(at).pool(),
            studio,
            project: ProjectId::random(),
            name: name.commitment(),
            version: 1,
            issued_ms: NOW,
            max_reach: Reach::Studio,
            nodes: None,
            hygiene: Hygiene::Full,
            retention_s: Some(60),
            closed: false,
        };
        StudioRecord::Project { record: Signed::new(&project, admin), name }
    }
}

/// amber on nodes 0 and 2, birch on node 1.
fn village() -> Village {
    let mut village = two_studios(3);
    let invite = village.invite(0, None).unwrap();
    village.join(2, &invite, "ws-02").unwrap();
    village.assert_agreed(3);
    village
}

#[test]
fn a_studio_has_a_key_from_its_founding_and_its_machines_share_it() {
    let mut village = village();
    let (amber, birch) = (village.own(0), village.own(1));
    assert_eq!(amber.key.map(|key| key.version), Some(1));
    assert_eq!(amber.secrets.len(), 1);
    assert_eq!(village.own(2), amber);
    assert!(birch.key.is_some() && birch.key != amber.key);
    for at in 0..3 {
        let before = village.own(at);
        village.restart(at, true);
        assert_eq!(village.own(at), before, "a restart forgets nothing");
    }
}

#[test]
fn a_project_is_known_in_its_studio_only() {
    let mut village = village();
    let record = village.project(0, "Night Train");
    let step = village.nodes[0].state.publish(&record, NOW).unwrap();
    village.perform(0, step);
    for at in [0, 2] {
        let own = village.own(at);
        let (id, project) = own.project("Night Train").unwrap();
        assert_eq!(project.name.name, "Night Train");
        assert!(own.project(&id.to_string()[..6]).is_ok());
        assert!(own.project("Night").is_err());
    }
    assert!(village.own(1).projects.is_empty());

    // Asked outright, a machine of amber tells birch nothing and takes nothing from it.
    let (birch, amber) = (village.id(1), village.id(0));
    let none = StudioSync { records: Vec::new(), secrets: Vec::new() };
    let (_, answer) = village.nodes[0].state.on_request(birch, Request::StudioSync(none), NOW);
    assert!(matches!(&answer, Response::Declined(no) if no.why == Decline::NotAllowed), "{answer:?}");
    let gift = StudioDiff { records: vec![village.project(1, "Trojan")], secrets: Vec::new() };
    let (step, _) = village.nodes[0].state.on_request(birch, Request::Studio(gift.clone()), NOW);
    assert!(step.facts.is_empty());
    let (step, _) = village.nodes[2].state.on_request(amber, Request::Studio(gift), NOW);
    assert!(step.facts.is_empty(), "signed by an admin of another studio");
}

#[test]
fn whoever_was_away_catches_up_and_whoever_leaves_forgets() {
    let mut village = village();
    village.nodes[2].awake = false;
    let record = village.project(0, "Night Train");
    let step = village.nodes[0].state.publish(&record, NOW).unwrap();
    village.perform(0, step);
    assert!(village.own(2).projects.is_empty());
    village.nodes[2].awake = true;
    village.meet();
    assert_eq!(village.own(2), village.own(0));
    let step = village.nodes[2].state.leave().unwrap();
    village.perform(2, step);
    village.restart(2, false);
    assert_eq!(village.own(2), OwnStudio::default());
}

#[test]
fn a_new_key_seals_and_the_old_one_still_opens() {
    let mut village = village();
    let place = MemoPlace {
        pool: village.roster(0).pool(),
        studio: village.own(0).home.unwrap().1,
        task: TaskId::from_bytes([1; 16]),
        attempt: 1,
    };
    let memo = Memo { person: "mina".into(), project: None, label: "shot 12".into() };
    let old = memo.seal(&village.own(0).key.unwrap(), &place).unwrap();
    let mut step = Step::default();
    assert!(village.nodes[0].state.make_studio_key(&mut step, NOW));
    village.perform(0, step);
    let new = memo.seal(&village.own(2).key.unwrap(), &place).unwrap();
    assert_eq!((old.key, new.key), (1, 2));
    for sealed in [old, new] {
        for at in [0, 2] {
            assert_eq!(village.own(at).open_memo(&sealed, &place), Ok(memo.clone()));
        }
        assert!(village.own(1).open_memo(&sealed, &place).is_err());
        let elsewhere = MemoPlace { attempt: 2, ..place };
        assert!(village.own(0).open_memo(&sealed, &elsewhere).is_err());
    }
    village.nodes[2].state.admin = None;
    assert!(!village.nodes[2].state.make_studio_key(&mut Step::default(), NOW), "no admin key here");
}
