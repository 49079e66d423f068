//! What may run here, and to whom this node is lent: shown, asked, changed.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use scenemesh_protocol::api::{
    ElsewhereView, ErrorCode, FindingKind, FindingView, LendView, PolicyChange, PolicyChangeRequest,
    PolicyCheckReply, PolicyCheckRequest, PolicyClassReply, PolicyClassRequest, PolicyReason, PolicyReply,
};
use scenemesh_protocol::ids::NodeId;
use scenemesh_protocol::roster::Member;

use super::Node;
use super::body::{Asked, Submitted};
use super::trouble::Trouble;
use super::workflow;
use crate::executor::graph::Graph;
use crate::executor::policy::{
    BadChoices, Change, ChangeError, Finding, Forbidden, Judged, List, Policy, Whose, WhyDenied,
};
use crate::messages::Lang;
use crate::scheduler::RefusedClasses;
use crate::{clock, membership, platform};

mod korean;

pub(super) async fn show(State(node): State<Node>) -> Json<PolicyReply> {
    let policy = node.ports.policy.policy().borrow().clone();
    Json(reply(&node, &policy))
}

pub(super) async fn change(
    State(node): State<Node>,
    Asked(asked): Asked<PolicyChangeRequest>,
) -> Result<Json<PolicyReply>, Trouble> {
    let change = match asked.change {
        PolicyChange::Allow => Change::Allow,
        PolicyChange::Deny => Change::Deny,
        PolicyChange::Reset => Change::Reset,
    };
    let changed = node.ports.policy.change(change, asked.classes).await;
    let policy = changed.map_err(|error| change_trouble(&error))?;
    Ok(Json(reply(&node, &policy)))
}

pub(super) async fn class(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Asked(asked): Asked<PolicyClassRequest>,
) -> Json<PolicyClassReply> {
    let policy = node.ports.policy.policy().borrow().clone();
    Json(verdict(&policy, asked.class, lang))
}

pub(super) async fn check(
    State(node): State<Node>,
    Extension(lang): Extension<Lang>,
    Submitted(asked): Submitted<PolicyCheckRequest>,
) -> Result<Json<PolicyCheckReply>, Trouble> {
    let graph = workflow::read(&asked.workflow)?;
    // Files come along when it is submitted.
    let attached: Vec<String> = graph.file_inputs().iter().map(|file| file.name().to_owned()).collect();
    let policy = node.ports.policy.policy().borrow().clone();
    let found = policy.findings(&graph, &[], &attached, Whose::Others);
    let findings: Vec<FindingView> = found.iter().map(|found| finding(found, lang)).collect();
    let refused = node.ports.scheduler.refused_classes().await;
    let elsewhere = elsewhere(&node, &graph, &attached, &refused, lang);
    Ok(Json(PolicyCheckReply { refused: !findings.is_empty(), findings, elsewhere }))
}

fn reply(node: &Node, policy: &Policy) -> PolicyReply {
    let list = List::embedded();
    let count = |allowed: bool| {
        let entries = list.entries().filter(|(_, entry)| (entry.judged == Judged::Allowed) == allowed);
        u32::try_from(entries.count()).unwrap_or(u32::MAX)
    };
    let lend = &node.ports.lend;
    let now_ms = clock::wall_ms();
    PolicyReply {
        version: list.version,
        comfyui: list.comfyui.clone(),
        listed_allowed: count(true),
        listed_denied: count(false),
        allowed: policy.choices.allowed.iter().cloned().collect(),
        denied: policy.choices.denied.iter().cloned().collect(),
        lend: LendView {
            to: lend.to.as_ref().map(|to| to.iter().cloned().collect()),
            classes: lend.classes.as_ref().map(|classes| classes.iter().copied().collect()),
            max_vram_mib: lend.max_vram_mib,
            hours: lend.hours.as_ref().map(|hours| hours.written().to_vec()),
            open: lend.facts(None, now_ms, platform::utc_offset_s).open,
        },
    }
}

fn verdict(policy: &Policy, class: String, lang: Lang) -> PolicyClassReply {
    let entry = List::embedded().entry(&class);
    let others = policy.class(&class, Whose::Others);
    let reason = match others {
        Ok(()) if policy.choices.allowed.contains(&class) => PolicyReason::AllowedByHand,
        Ok(()) => PolicyReason::Listed,
        Err(WhyDenied::Family(_)) => PolicyReason::Family,
        Err(WhyDenied::Unlisted) => PolicyReason::Unlisted,
        Err(WhyDenied::ByHand) => PolicyReason::DeniedByHand,
    };
    let family = match others {
        Err(WhyDenied::Family(family)) => Some(family),
        _ => None,
    };
    let words = match (lang, others) {
        (Lang::En, Ok(())) if reason == PolicyReason::AllowedByHand => {
            "it may run: the owner of this machine allowed it".to_owned()
        }
        (Lang::En, Ok(())) => "it may run".to_owned(),
        (Lang::En, Err(why)) => format!("it does not run for others: {why}"),
        (Lang::Ko, Ok(())) => korean::allowed(reason == PolicyReason::AllowedByHand),
        (Lang::Ko, Err(why)) => korean::denied(why),
    };
    PolicyClassReply {
        allowed: others.is_ok(),
        allowed_own: policy.class(&class, Whose::OwnMachine).is_ok(),
        reason,
        family: family.map(|family| family.word().to_owned()),
        from: entry.map(|entry| entry.from.clone()),
        words,
        class,
    }
}

fn finding(found: &Finding, lang: Lang) -> FindingView {
    let family = |why: &WhyDenied| match why {
        WhyDenied::Family(family) => Some(family.word().to_owned()),
        _ => None,
    };
    let (kind, input, family, english) = match &found.what {
        Forbidden::Class(why) => (FindingKind::Class, None, family(why), why.to_string()),
        Forbidden::Literal { input, offence } => {
            (FindingKind::Literal, Some(input.clone()), None, offence.to_string())
        }
        Forbidden::Token { key } => {
            (FindingKind::Credential, None, None, format!("{key} is a comfy.org credential"))
        }
    };
    let words = match lang {
        Lang::En => english,
        Lang::Ko => korean::finding(&found.what),
    };
    FindingView { node: found.node.clone(), class: found.class.clone(), input, kind, family, words }
}

/// What the other machines would say, by what they told: their inventories, their answers to offers, and the list, which every
/// node has unless its owner decided otherwise.
fn elsewhere(
    node: &Node,
    graph: &Graph,
    attached: &[String],
    refused: &RefusedClasses,
    lang: Lang,
) -> Vec<ElsewhereView> {
    let Some(roster) = node.ports.membership.roster().borrow().clone() else { return Vec::new() };
    let peers = node.ports.network.peers().borrow().clone();
    let by_list = Policy::default().findings(graph, &[], attached, Whose::Others);
    let classes = graph.classes();
    let view = |member: &Member| {
        let id: NodeId = member.node.node();
        let said = refused.get(&id).and_then(|said: &BTreeMap<_, _>| {
            classes.iter().find_map(|class| Some((class.as_str(), *said.get(class)?)))
        });
        let inventory = peers.peers.get(&id).and_then(|peer| peer.inventory.clone());
        let lacks = inventory.as_ref().and_then(|inventory| {
            classes.iter().find(|class| inventory.classes.binary_search(class).is_err())
        });
        let (takes, words) = match (said, by_list.first(), &inventory, lacks) {
            (Some((class, why)), ..) => (false, said_words(class, why, lang)),
            (None, Some(found), ..) => (false, list_words(found, by_list.len(), lang)),
            (None, None, None, _) => (true, unknown_words(lang)),
            (None, None, Some(_), Some(class)) => (false, lacks_words(class, lang)),
            (None, None, Some(_), None) => (true, nothing_words(lang)),
        };
        let studio = membership::studio_name(&roster, &member.studio);
        ElsewhereView { node: id, name: member.name.clone(), studio, takes, words }
    };
    let others = roster.members(clock::wall_ms());
    others.filter(|member| member.node.node() != node.ports.me && member.roles.render).map(view).collect()
}

fn said_words(class: &str, why: WhyDenied, lang: Lang) -> String {
    match lang {
        Lang::En => format!("it refused {class}: {why}"),
        Lang::Ko => format!("{class} 거절: {}", korean::why(why)),
    }
}

fn list_words(found: &Finding, count: usize, lang: Lang) -> String {
    let more = count - 1;
    match lang {
        Lang::En if more > 0 => {
            format!("refuses by its list, unless its owner allowed it: {found}, and {more} more")
        }
        Lang::En => format!("refuses by its list, unless its owner allowed it: {found}"),
        Lang::Ko => {
            let words = korean::finding(&found.what);
            format!(
                "주인이 허용하지 않았다면 목록에 따라 거절: 노드 {} ({}): {words} (모두 {count}건)",
                found.node, found.class
            )
        }
    }
}

fn lacks_words(class: &str, lang: Lang) -> String {
    match lang {
        Lang::En => format!("does not have {class}"),
        Lang::Ko => format!("{class} 클래스가 없음"),
    }
}

fn unknown_words(lang: Lang) -> String {
    match lang {
        Lang::En => "has not told what it has".into(),
        Lang::Ko => "무엇이 있는지 아직 알려 주지 않음".into(),
    }
}

fn nothing_words(lang: Lang) -> String {
    match lang {
        Lang::En => "nothing speaks against it".into(),
        Lang::Ko => "거절할 이유가 알려진 것은 없음".into(),
    }
}

fn change_trouble(error: &ChangeError) -> Trouble {
    let code = match error {
        ChangeError::Choices(BadChoices::Partner { .. }) => ErrorCode::Refused,
        ChangeError::Choices(_) => ErrorCode::Usage,
        ChangeError::File(_) => ErrorCode::Conflict,
        ChangeError::Write { .. } => ErrorCode::DiskFull,
        ChangeError::Stopping => return Trouble::stopping(),
    };
    Trouble::of(code, error, Some(korean::change(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::policy::Family;

    #[test]
    fn a_verdict_tells_both_languages_and_both_sides() {
        let mut policy = Policy::default();
        let denied = verdict(&policy, "RegexMatch".into(), Lang::En);
        assert!(!denied.allowed && denied.allowed_own);
        assert_eq!((denied.reason, denied.family.as_deref()), (PolicyReason::Family, Some("hang")));
        assert_eq!(denied.words, "it does not run for others: nothing can interrupt it");
        let partner = verdict(&policy, "OpenAIChatNode".into(), Lang::Ko);
        assert!(!partner.allowed && !partner.allowed_own && !partner.words.is_ascii());
        policy.choices.allowed.insert("RegexMatch".into());
        let by_hand = verdict(&policy, "RegexMatch".into(), Lang::En);
        assert_eq!((by_hand.allowed, by_hand.reason), (true, PolicyReason::AllowedByHand));
        assert_eq!(verdict(&policy, "Unheard".into(), Lang::En).reason, PolicyReason::Unlisted);
        assert_eq!(verdict(&policy, "KSampler".into(), Lang::En).from.as_deref(), Some("nodes"));
        let mut families = Family::ALL.into_iter().map(|family| korean::why(WhyDenied::Family(family)));
        assert!(families.all(|words| !words.is_ascii()));
    }
}
