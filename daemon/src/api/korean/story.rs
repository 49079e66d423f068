//! Korean for why a task stands where it stands, and for its log. Their English is `Display`. A node's name is
//! followed by a colon or by a particle that goes with every name.

use scenemesh_protocol::lease::RefusalReason;
use scenemesh_protocol::task::{Failure, FailureClass};

use crate::messages::{Lang, phrase};
use crate::scheduler::placement::{WhyNot, capability, gigabytes};
use crate::scheduler::story::{Doing, Held, Line, No, Place, Why, seconds};
use crate::scheduler::suspicion::Suspicion;

/// What others said, in Korean where we know the sentence.
fn said(text: &str) -> String {
    phrase(Lang::Ko, text)
}

/// A machine in no pool has no name of its own.
pub(in crate::api) fn name(node: &str) -> String {
    said(node)
}

pub(in crate::api) fn why(told: &Why) -> String {
    match told {
        Why::Waits => "대기 중입니다".into(),
        Why::NoNodes => {
            "아는 노드가 없습니다: 이 컴퓨터에 ComfyUI가 없고 아직 풀에도 들어 있지 않습니다".into()
        }
        Why::Outside { words } => said(words),
        Why::BehindOthers => "이 컴퓨터의 다른 작업들 뒤에서 차례를 기다립니다".into(),
        Why::InLine { places } => {
            let places: Vec<String> =
                places.iter().map(|(node, at)| format!("{} ({})", name(node), place(*at))).collect();
            format!("빈 자리를 기다립니다: {}", places.join(", "))
        }
        Why::Nobody { reasons, more, elsewhere } => {
            let reasons: Vec<String> =
                reasons.iter().map(|(node, why)| format!("{}: {}", name(node), why_not(why))).collect();
            let more = if *more > 0 { format!("; 그 밖에 {more}개 노드") } else { String::new() };
            let elsewhere = elsewhere.as_ref().map(|(model, nodes)| {
                let nodes: Vec<String> = nodes.iter().map(|node| name(node)).collect();
                format!(" ({model} 모델이 있는 노드: {})", nodes.join(", "))
            });
            format!(
                "지금 맡을 노드가 없습니다: {}{more}{}",
                reasons.join("; "),
                elsewhere.unwrap_or_default()
            )
        }
        Why::Claimed { node } => {
            format!("{}에서 맡겠다고 해서 그 노드용으로 암호화하는 중입니다", name(node))
        }
        Why::Held { node, at, silent_s } => {
            let node = name(node);
            let silent = silent_s.map(|silent| format!("; {silent}초째 소식이 없습니다")).unwrap_or_default();
            let at = match at {
                Held::Granted => format!("{node}에 넘겼고 아직 답이 없습니다"),
                Held::Accepted => format!("{node}에서 맡았습니다"),
                Held::At(at) => format!("{node}: {}", doing(at)),
                Held::Fetching => format!("{node}에서 렌더링했고 결과를 받는 중입니다"),
                Held::FetchBroke { why } => {
                    format!("{node}에서 렌더링했지만 결과를 받다가 끊겨 다시 시도합니다 ({})", said(why))
                }
                Held::ByDeputy => format!("대리 노드 {node}에서 렌더링을 맡겼고 결과를 가져옵니다"),
                Held::Somehow => format!("{node}에 있습니다"),
            };
            at + &silent
        }
        Why::Done { node, exec_ms } => format!("{}에서 {}초 만에 끝났습니다", name(node), seconds(*exec_ms)),
        Why::Failed { failures } => {
            let all: Vec<String> =
                failures.iter().map(|(node, why)| format!("{}: {}", name(node), failure(why))).collect();
            format!("실패했습니다: {}", all.join("; "))
        }
        Why::Cancelled => "취소되었습니다".into(),
        Why::Paused => "일시 정지되어 다시 시작하기를 기다립니다".into(),
        Why::AsksDeputy { node } => {
            format!("이 컴퓨터가 없는 동안 대리 노드 {}에서 이어 갔을 수 있어 먼저 물어봅니다", name(node))
        }
        Why::KeptFor { node } => {
            format!("{}의 작업을 보관하고 있습니다; 그 노드가 있는 동안은 직접 진행합니다", name(node))
        }
        Why::BuildsOn { on, more: 0 } => {
            format!("태스크 #{on}의 결과를 써야 하는데 아직 렌더링되지 않았습니다")
        }
        Why::BuildsOn { on, more } => {
            format!("태스크 #{on} 외 {more}개의 결과를 써야 하는데 아직 렌더링되지 않았습니다")
        }
        Why::Skipped { on, failed } => {
            let how = if *failed { "실패해서" } else { "취소되어" };
            format!(
                "결과를 써야 할 태스크 #{on} 항목이 {how} 렌더링하지 않았습니다; 다시 시도하면 둘 다 렌더링합니다"
            )
        }
        Why::AllDone { tasks } => format!("태스크 {tasks}개가 모두 끝났습니다"),
        Why::OfTask { index, of, why: of_task } => {
            format!("태스크 {of}개 중 #{index}: {}", why(of_task))
        }
    }
}

fn place(place: Place) -> String {
    match place {
        Place::Asked => "묻는 중".into(),
        Place::Waiting { position, eta_ms: None } => format!("앞에 {position}개"),
        Place::Waiting { position, eta_ms: Some(eta) } => format!("앞에 {position}개, 약 {}초", eta / 1000),
    }
}

fn doing(doing: &Doing) -> String {
    match doing {
        Doing::FetchingInputs => "입력 파일을 받는 중".into(),
        Doing::QueuedInComfyui => "ComfyUI 대기열에 있음".into(),
        Doing::Sealing => "결과를 암호화하는 중".into(),
        Doing::Steps { graph_node, step, max } => {
            format!("렌더링 중, 그래프 노드 {graph_node}, {max}단계 중 {step}단계")
        }
        Doing::Nodes { done, of } => format!("렌더링 중, 그래프 노드 {of}개 중 {done}개 끝남"),
    }
}

/// After a node's name and a colon.
fn why_not(why: &WhyNot) -> String {
    let more = |more: usize| if more == 0 { String::new() } else { format!(" 외 {more}개") };
    match why {
        WhyNot::OutOfReach(reach) => format!("작업 범위({reach}) 밖"),
        WhyNot::OutOfProject(reach) => format!("프로젝트 범위({reach}) 밖"),
        WhyNot::NotOfProject => "프로젝트에 지정된 노드가 아님".into(),
        WhyNot::NoProject => "작업의 프로젝트에 이 스튜디오에서 유효한 기록이 없음".into(),
        WhyNot::NotConnected => "연결되지 않음".into(),
        WhyNot::LinkRefused(why) => format!("쓸 수 없음: {}", said(why)),
        WhyNot::DoesNotRender => "render 역할 없음".into(),
        WhyNot::NoAdvert => "아직 자기 상태를 알리지 않음".into(),
        WhyNot::NoSlot => "준비된 ComfyUI 없음".into(),
        WhyNot::NotNow => "지금은 다른 사람의 작업을 받지 않음".into(),
        WhyNot::NoInventory => "아직 모델 목록을 알리지 않음".into(),
        WhyNot::LacksClasses { first, more: n } => format!("노드 클래스 {first}{} 없음", more(*n)),
        WhyNot::LacksModels { first, more: n } => format!("모델 {first}{} 없음", more(*n)),
        WhyNot::VramUnknown { need_mib } => {
            format!("비디오 메모리를 알 수 없음, {} 필요", gigabytes(*need_mib))
        }
        WhyNot::TooLittleVram { need_mib, has_mib } => {
            format!("비디오 메모리 {}, {} 필요", gigabytes(*has_mib), gigabytes(*need_mib))
        }
        WhyNot::CcUnknown { need } => format!("CUDA 연산 능력을 알 수 없음, {} 필요", capability(*need)),
        WhyNot::CcTooLow { need, has } => {
            format!("CUDA 연산 능력 {}, {} 필요", capability(*has), capability(*need))
        }
        WhyNot::PartialHygiene => "ComfyUI를 완전히 정리할 수 없음 (hygiene = partial)".into(),
        WhyNot::NoneLeft => "남은 태스크 없음: 다른 노드들이 모두 맡음".into(),
        WhyNot::FailedThere { failure: failed, returns } => {
            let what = failed.as_ref().map_or_else(
                || "맡았다가 잃어버림".to_owned(),
                |failed| format!("이미 실패함: {}", failure(failed)),
            );
            if *returns { what + "; 나중에 다시 맡김" } else { what }
        }
        WhyNot::SaidNo(said_no) => format!("거절: {}", no(said_no)),
    }
}

fn no(no: &No) -> String {
    match no {
        No::Refused { reason, detail } => {
            let reason = refusal(*reason);
            match (detail.trim(), said(detail)) {
                ("", _) => reason.into(),
                // Its own words, which are not ours to translate.
                (_, told) if told == *detail => format!("{reason} ({detail})"),
                (_, told) => told,
            }
        }
        No::Class { class, why } => {
            format!("다른 컴퓨터의 노드 클래스 {class} 실행 안 함: {}", said(&why.to_string()))
        }
        No::NoAnswer { why } => format!("제안에 답이 없음 ({})", said(why)),
        No::Balks => "맡겠다고 하고 맡지 않기를 되풀이해서 나중에 다시 물음".into(),
        No::FailedMany { tasks } => {
            format!(
                "이 작업의 태스크 {tasks}개를 실패해서 다섯 시간 동안, 또는 다시 시도할 때까지 맡기지 않음"
            )
        }
        No::NotSealed { why } => said(why),
    }
}

const fn refusal(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::NotReady => "ComfyUI가 준비되지 않음",
        RefusalReason::MissingClass => "노드 클래스 없음",
        RefusalReason::MissingModel => "모델 없음",
        RefusalReason::TooLittleVram => "비디오 메모리 부족",
        RefusalReason::NotAllowed => "허용되지 않음",
        RefusalReason::Busy => "다른 일을 하는 중",
        RefusalReason::Stopping => "종료하는 중",
        RefusalReason::DiskFull => "디스크 공간 부족",
        RefusalReason::BadGrant => "받아들일 수 없는 요청",
        RefusalReason::Tombstone => "이미 포기한 시도",
        RefusalReason::Version => "서로 다른 버전",
        RefusalReason::NotNow => "지금은 받지 않음",
    }
}

pub(in crate::api) fn failure(failure: &Failure) -> String {
    let Failure { class, detail } = failure;
    let class = match class {
        FailureClass::InvalidGraph => "잘못된 그래프",
        FailureClass::MissingModelOrClass => "모델이나 노드 클래스 없음",
        FailureClass::OutOfMemory => "메모리 부족",
        FailureClass::ComfyuiDied => "ComfyUI가 멈춤",
        FailureClass::Policy => "정책에 따라 거부됨",
        FailureClass::Transfer => "전송 실패",
        FailureClass::DiskFull => "디스크 공간 부족",
        FailureClass::Timeout => "시간 초과",
        FailureClass::OwnerReturned => "주인이 GPU를 되찾음",
        FailureClass::Revoked => "자격이 폐기됨",
        FailureClass::Cancelled => "취소됨",
        FailureClass::ResultDoesNotVerify => "결과가 검증되지 않음",
        FailureClass::LeaseLost => "임대가 끊김",
        FailureClass::Execution => "실행 오류",
        FailureClass::Suspect => "의심스러운 결과",
    };
    if detail.is_empty() { class.into() } else { format!("{class}: {}", said(detail)) }
}

pub(in crate::api) fn line(line: &Line) -> String {
    match line {
        Line::Queued => "대기열에 넣음".into(),
        Line::QueuedAgain => "다시 대기열에 넣음".into(),
        Line::Offered { node } => format!("{}에 제안함", name(node)),
        Line::InLine { node, position } => format!("{}에서 기다림, 앞에 {position}개", name(node)),
        Line::SaidNo { node, no: said_no } => format!("{}에서 거절: {}", name(node), no(said_no)),
        Line::Claimed { node } => format!("{}에서 맡겠다고 함", name(node)),
        Line::NotSealed { node, why } => format!("{}용으로 암호화하지 못함: {}", name(node), said(why)),
        Line::Granted { node, attempt } => format!("{}에 넘김, {attempt}번째 시도", name(node)),
        Line::BadSignature { node } => format!("{}의 수락 서명이 맞지 않음", name(node)),
        Line::Accepted { node } => format!("{}에서 맡음", name(node)),
        Line::Rejected { node, no: said_no } => format!("{}에서 거부: {}", name(node), no(said_no)),
        Line::NotTaken { node, no: said_no } => format!("{}에서 맡지 않음: {}", name(node), no(said_no)),
        Line::Doing { node, doing: at } => format!("{}: {}", name(node), doing(at)),
        Line::Silent { node } => format!("{}에서 소식이 없어 물어봄", name(node)),
        Line::Lost { node, silent_s } => {
            format!("임대가 끊김: {}에서 {silent_s}초 동안 소식 없음", name(node))
        }
        Line::Unheld { node } => format!("{}에 더는 없음", name(node)),
        Line::Back { node } => format!("{}에 다시 연결되었고 태스크도 그대로 있음", name(node)),
        Line::Finished { node } => format!("{}에서 끝남: 결과를 받는 중", name(node)),
        Line::FetchBroke { node, why } => format!("{}에서 결과를 받다가 끊김: {}", name(node), said(why)),
        Line::Done { node, files } => format!("완료: {}에서 파일 {files}개", name(node)),
        Line::Failed { node, failure: failed } => format!("{}에서 실패: {}", name(node), failure(failed)),
        Line::FailedForGood => "최종 실패".into(),
        Line::Cancelled => "취소됨".into(),
        Line::Paused => "일시 정지됨".into(),
        Line::Resumed => "다시 시작됨".into(),
        Line::Suspect { node, files } => {
            format!("{}에서 온 파일 {files}개가 이상해 보임: show로 확인", name(node))
        }
        Line::NotWiped { node } => {
            format!("{}의 ComfyUI에서 모두 지우지는 못함: show로 확인", name(node))
        }
        Line::KeptOn { node } => format!("{}에도 보관됨: 이 노드가 없으면 거기서 이어 감", name(node)),
        Line::NotKept { node, why } => format!("{}에 보관되지 않음: {}", name(node), said(why)),
        Line::KeptFor { node } => format!("{}의 작업을 보관함", name(node)),
        Line::TakenUp { node } => format!("{}에 연결할 수 없어 여기서 이어 감", name(node)),
        Line::GivenBack { node } => format!("{}에 다시 연결되어 그 노드가 이어 감", name(node)),
        Line::InHand { node } => format!("그동안 대리 노드 {}에서 맡김: 결과를 기다림", name(node)),
    }
}

/// What is wrong with a picture.
pub(in crate::api) fn suspicion(why: Suspicion) -> String {
    match why {
        Suspicion::Undecodable => "그림을 읽을 수 없습니다".into(),
        Suspicion::Uniform => "모든 픽셀이 같은 색입니다".into(),
        Suspicion::WrongSize { width, height, wanted_width, wanted_height } => {
            format!("크기가 {wanted_width}×{wanted_height}이어야 하는데 {width}×{height}입니다")
        }
    }
}

#[cfg(test)]
mod tests;
