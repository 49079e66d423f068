//! What is said of lending, in English and Korean.

use scenemesh_protocol::api::LendState;

use crate::messages::{Lang, phrase};
use crate::scheduler::giving::{Known, REACTS_WITHIN, SlotBack};
use crate::scheduler::lend::keeper::ChangeError;
use crate::scheduler::lend::{BadMoment, Hand};

/// How this machine stands toward others, in one sentence.
pub(super) fn standing(state: LendState, hand: Hand, until: Option<&str>, lang: Lang) -> String {
    let english = match state {
        LendState::Draining => "it takes no new work from anybody: it is being drained",
        LendState::NotARenderer => "this node renders for nobody: it is in no pool, or has no role `render`",
        LendState::OutsideHours => "lent, but not at this hour (hours in [lend])",
        LendState::Lent => "lent to others",
        LendState::GivingBack => "the GPU is being given back to you",
        LendState::Back => "the GPU is yours",
    };
    let korean = match state {
        LendState::Draining => "누구의 새 일도 받지 않습니다: 비우는 중(drain)입니다",
        LendState::NotARenderer => "이 노드는 남의 일을 하지 않습니다: 풀에 없거나 render 역할이 없습니다",
        LendState::OutsideHours => "빌려 주지만 지금은 시간대 밖입니다 ([lend]의 hours)",
        LendState::Lent => "다른 사람들에게 빌려 주고 있습니다",
        LendState::GivingBack => "GPU를 되찾는 중입니다",
        LendState::Back => "GPU는 지금 내 것입니다",
    };
    let (standing, then) = match lang {
        Lang::En if hand == Hand::Lent => {
            (english, until.map(|until| format!(" until {until}, then it is given back")))
        }
        Lang::En => (english, until.map(|until| format!(" until {until}, then it is lent again"))),
        Lang::Ko if hand == Hand::Lent => {
            (korean, until.map(|until| format!(" ({until}까지, 그 뒤 되찾음)")))
        }
        Lang::Ko => (korean, until.map(|until| format!(" ({until}까지, 그 뒤 다시 빌려 줌)"))),
    };
    format!("{standing}{}", then.unwrap_or_default())
}

/// How far one ComfyUI is with it.
pub(super) fn slot(slot: &SlotBack, lang: Lang) -> String {
    match lang {
        Lang::En => english(slot),
        Lang::Ko => korean(slot),
    }
}

fn english(slot: &SlotBack) -> String {
    match slot {
        SlotBack::Finishing { at_most } => {
            format!("others' work is nearly done and may finish, for {} s at most", at_most.as_secs())
        }
        SlotBack::Stopping { since } if *since < REACTS_WITHIN => "others' work is being interrupted".into(),
        SlotBack::Stopping { since } => format!(
            "told to stop {} s ago, and ComfyUI does not react: while it loads a model it cannot; restart it if that lasts",
            since.as_secs()
        ),
        SlotBack::Stuck { why } => phrase(Lang::En, why),
        SlotBack::Freeing => "ComfyUI was told to let its memory go".into(),
        SlotBack::OwnWork => "a task of your own runs; its models stay".into(),
        SlotBack::Done(report) => match report.known() {
            Known::Free => "its video memory is free".into(),
            Known::Yours => "a prompt of your own runs; its models stay".into(),
            Known::Held => {
                "ComfyUI was told to let its memory go, and it is still held: restart ComfyUI if you need it"
                    .into()
            }
            Known::Unverified { why } => format!(
                "ComfyUI was told to let its memory go; that it did could not be verified ({})",
                phrase(Lang::En, &why)
            ),
        },
    }
}

fn korean(slot: &SlotBack) -> String {
    match slot {
        SlotBack::Finishing { at_most } => {
            format!("다른 사람의 일이 거의 끝나서 마치게 둡니다, 길어야 {}초", at_most.as_secs())
        }
        SlotBack::Stopping { since } if *since < REACTS_WITHIN => "다른 사람의 일을 중단하는 중입니다".into(),
        SlotBack::Stopping { since } => format!(
            "{}초 전에 멈추라고 했지만 ComfyUI가 반응하지 않습니다: 모델을 읽는 동안에는 멈출 수 없습니다; 계속되면 ComfyUI를 다시 시작하세요",
            since.as_secs()
        ),
        SlotBack::Stuck { why } => phrase(Lang::Ko, why),
        SlotBack::Freeing => "ComfyUI에 메모리를 비우라고 했습니다".into(),
        SlotBack::OwnWork => "내 태스크가 돌고 있어 모델을 그대로 둡니다".into(),
        SlotBack::Done(report) => match report.known() {
            Known::Free => "비디오 메모리가 비었습니다".into(),
            Known::Yours => "내 프롬프트가 돌고 있어 모델을 그대로 둡니다".into(),
            Known::Held => {
                "ComfyUI에 메모리를 비우라고 했지만 아직 쥐고 있습니다: 필요하면 ComfyUI를 다시 시작하세요"
                    .into()
            }
            Known::Unverified { why } => format!(
                "ComfyUI에 메모리를 비우라고 했지만 비었는지 확인하지 못했습니다 ({})",
                phrase(Lang::Ko, &why)
            ),
        },
    }
}

pub(super) fn bad_moment(error: &BadMoment) -> String {
    match error {
        BadMoment::Unreadable { given } => format!(
            "{given:?} 값은 시각이 아닙니다; 18:30, 2h, 1h30m, \"2026-11-26 18:30\", 2026-11-26T18:30:00+09:00처럼 쓰세요"
        ),
        BadMoment::Past { given } => format!("{given:?} 시각은 이미 지났습니다; 앞으로 올 시각을 쓰세요"),
        BadMoment::TooFar { given } => {
            format!("{given:?} 시각은 1년 뒤보다 멉니다; 끝이 없으면 시각을 쓰지 마세요")
        }
    }
}

pub(super) fn not_written(error: &ChangeError) -> String {
    match error {
        ChangeError::Write { path, source } => {
            format!("{} 파일을 쓸 수 없습니다: {source}; 디스크와 폴더 소유자를 확인하세요", path.display())
        }
        ChangeError::Stopping => "노드가 멈추는 중입니다".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::executor::{Freed, Verdict};
    use crate::scheduler::giving::Report;

    fn both(of: impl Fn(Lang) -> String) {
        let (english, korean) = (of(Lang::En), of(Lang::Ko));
        assert!(english.is_ascii() && !english.is_empty(), "{english}");
        assert!(korean.contains(|c: char| ('가'..='힣').contains(&c)), "{korean}");
        let left: String = ["ComfyUI", "GPU", "render", "drain", "lend", "hours"]
            .iter()
            .fold(korean.clone(), |text, kept| text.replace(kept, ""));
        assert!(!left.contains(|c: char| c.is_ascii_lowercase()), "English is left: {korean}");
    }

    #[test]
    fn every_standing_is_said_in_both_languages() {
        use LendState as S;
        for state in [S::Lent, S::OutsideHours, S::Draining, S::GivingBack, S::Back, S::NotARenderer] {
            for hand in [Hand::Lent, Hand::Back] {
                both(|lang| standing(state, hand, None, lang));
                both(|lang| standing(state, hand, Some("2026-11-26 18:30"), lang));
            }
        }
        assert_eq!(
            standing(S::Back, Hand::BackNow, Some("2026-11-26 18:30"), Lang::En),
            "the GPU is yours until 2026-11-26 18:30, then it is lent again"
        );
    }

    #[test]
    fn every_slot_is_said_in_both_languages() {
        let done = |verdict| SlotBack::Done(Report { freed: Freed::of(verdict), driver: None });
        let stuck = "a stopped task still runs in ComfyUI at 7 and does not react to an interrupt; restart it if that lasts";
        for told in [
            SlotBack::Finishing { at_most: Duration::from_secs(9) },
            SlotBack::Stopping { since: Duration::ZERO },
            SlotBack::Stopping { since: REACTS_WITHIN },
            SlotBack::Stuck { why: stuck.into() },
            SlotBack::Freeing,
            SlotBack::OwnWork,
            done(Verdict::Freed),
            done(Verdict::StillHeld),
            done(Verdict::InUse),
            done(Verdict::NotRunning),
            done(Verdict::Unknown { why: "ComfyUI does not tell what it holds of a GPU".into() }),
        ] {
            both(|lang| slot(&told, lang));
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_in_both_languages() {
        let given = || "7".to_owned();
        for error in [
            BadMoment::Unreadable { given: given() },
            BadMoment::Past { given: given() },
            BadMoment::TooFar { given: given() },
        ] {
            assert!(error.to_string().is_ascii() && error.to_string().contains("; "));
            assert!(bad_moment(&error).contains("; ") && !bad_moment(&error).is_ascii());
        }
    }
}
