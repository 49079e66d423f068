//! What `doctor` says of the journal and the index.

use std::path::Path;

use scenemesh_protocol::api::CheckState;

use super::Node;
use super::doctor::Findings;
use crate::messages::{Message, RecordKind};
use crate::scheduler::record::{RendererRecord, RequesterRecord};
use crate::store::{Finding, JournalError, Record};

/// What opening found, and what is wrong now.
pub(super) fn check(node: &Node, findings: &mut Findings) {
    let store = &node.ports.store;
    let before = findings.len();
    for finding in store.findings.iter() {
        let state = if finding.is_loss() { CheckState::Warn } else { CheckState::Ok };
        if let Some((name, found, hint)) = words(finding) {
            let state = if hint.is_some() { CheckState::Warn } else { state };
            findings.note(name, state, &found, hint);
        }
    }
    match store.journal.trouble() {
        Some(JournalError::NoSpace { .. }) => {
            findings.note("journal", CheckState::Fail, &Message::NoRoomForJournal, Some(Message::HintDisk));
        }
        Some(error) => {
            let found = Message::JournalStuck { why: error.to_string() };
            findings.note("journal", CheckState::Fail, &found, Some(Message::HintCheckDiskAndRestart));
        }
        None => {}
    }
    if let Some(error) = store.index.trouble() {
        let found = Message::IndexBroken { why: error.to_string() };
        findings.note("index", CheckState::Warn, &found, Some(Message::HintRebuild));
    }
    if findings.len() == before {
        findings.note("journal", CheckState::Ok, &Message::JournalFine, None);
    }
}

fn kind(kind: u16) -> RecordKind {
    match kind {
        RequesterRecord::KIND => RecordKind::Jobs,
        RendererRecord::KIND => RecordKind::Rendered,
        // The high byte says whose records they are.
        kind if kind >> 8 == 1 => RecordKind::Membership,
        kind => RecordKind::Other(kind),
    }
}

fn words(finding: &Finding) -> Option<(&'static str, Message, Option<Message>)> {
    let shown = |path: &Path| path.display().to_string();
    Some(match finding {
        Finding::TornJournal { bytes, .. } => ("journal", Message::JournalTorn { bytes: *bytes }, None),
        Finding::MendedHeader { kept } | Finding::StrayBytes { kept, .. } => {
            ("journal", Message::JournalMended { kept: shown(kept) }, Some(Message::HintLookAtDisk))
        }
        Finding::LostRecords { bytes, kinds, kept } => {
            let kinds = kinds.iter().map(|known| kind(*known)).collect();
            let found = Message::JournalLost { bytes: *bytes, kinds, kept: shown(kept) };
            ("journal", found, Some(Message::HintLost))
        }
        Finding::UnreadableSegment { bytes, kept } => {
            let found = Message::JournalLost { bytes: *bytes, kinds: Vec::new(), kept: shown(kept) };
            ("journal", found, Some(Message::HintLost))
        }
        Finding::MissingSegments { bytes } => {
            ("journal", Message::JournalBeginsLate { bytes: *bytes }, Some(Message::HintLost))
        }
        Finding::LostEnd { bytes } => {
            ("journal", Message::JournalEndsEarly { bytes: *bytes }, Some(Message::HintSetBack))
        }
        Finding::LostJournal => ("journal", Message::JournalGone, Some(Message::HintSetBack)),
        Finding::DamagedIndex { moved_to, .. } => {
            ("index", Message::IndexRebuilt { kept: shown(moved_to) }, None)
        }
        Finding::Imported { records } => ("journal", Message::JournalImported { records: *records }, None),
        Finding::ImportLeft { path } => {
            let path = shown(path);
            ("journal", Message::ImportLeft { path: path.clone() }, Some(Message::HintRemoveImport { path }))
        }
        // What is wrong with the index now is told below.
        Finding::BlobLeftovers { .. } | Finding::NoIndex { .. } => return None,
    })
}
