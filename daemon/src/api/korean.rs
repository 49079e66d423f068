//! Korean for what the modules below refuse with. Their English stands at the errors themselves; as there, a hint
//! comes after the last semicolon.

mod story;

use scenemesh_protocol::invite::{BadInvite, JoinRefusal};

use crate::executor::graph::{GraphError, MAX_DEPTH};
use crate::membership::{
    CannotApprove, CannotFound, CannotInvite, CannotJoin, CannotProject, KeysError, NoInvite, NoSuchProject,
};
use crate::messages::{Lang, phrase};
use crate::network::PorchError;
use crate::scheduler::{NoDeputy, SHAPE_LIMIT, SubmitError};
use crate::store::{BlobError, JournalError};

pub(super) use story::{failure, line, name, suspicion, why};

mod trust;

pub(super) use trust::trust;

pub(super) fn graph(error: &GraphError) -> String {
    match error {
        GraphError::TooLarge { bytes } => {
            format!("워크플로가 {bytes}바이트로 한도를 넘습니다; 그림을 넣지 말고 --input NAME=FILE로 보내세요")
        }
        GraphError::TooDeep => {
            format!("워크플로의 목록과 객체가 {MAX_DEPTH}단계보다 깊게 중첩되어 있습니다; ComfyUI 그래프는 그렇지 않습니다")
        }
        GraphError::NotJson { why } => format!("워크플로가 JSON이 아닙니다: {why}"),
        GraphError::UiFormat => "ComfyUI 편집기 형식의 워크플로라서 그대로 실행할 수 없습니다; ComfyUI에서 열어 Workflow → Export (API)로 \
             저장한 파일을 제출하세요 (옛 메뉴에서는 dev mode를 켠 뒤 Save (API Format))"
            .into(),
        GraphError::NotAGraph { why } => format!("JSON이지만 API 형식의 ComfyUI 그래프가 아닙니다: {why}"),
        GraphError::TooManyNodes { nodes } => format!("워크플로의 노드가 {nodes}개로 한도를 넘습니다"),
        GraphError::BadPath { path } => {
            format!("{path:?} 값은 노드의 입력을 가리키지 않습니다; 3.seed처럼 NODE.INPUT으로 쓰세요")
        }
        GraphError::NoSuchNode { node, known } => format!("워크플로에 노드 {node:?} 없음; 있는 노드: {known}"),
        GraphError::NoSuchInput { node, class, input, known } => {
            format!("노드 {node} ({class})에 입력 {input:?} 없음; 있는 입력: {known}")
        }
    }
}

/// Jobs that are over a limit.
pub(super) fn found(error: &CannotFound) -> String {
    match error {
        CannotFound::InPool(pool) => {
            format!("이 노드는 이미 {pool} 풀에 있습니다; 먼저 scenemesh leave를 실행하세요")
        }
        CannotFound::Joining => {
            "이 노드는 풀에 들어가기를 기다리는 중입니다; 그만두려면 먼저 scenemesh leave를 실행하세요".into()
        }
        CannotFound::BadName { of, name } => {
            let of = match *of {
                "pool" => "풀",
                "studio" => "스튜디오",
                _ => "노드",
            };
            format!(
                "{name:?} 값은 {of} 이름으로 쓸 수 없습니다: 비었거나 64바이트를 넘거나 제어 문자가 있습니다; 다른 이름을 쓰세요"
            )
        }
    }
}

pub(super) fn no_project(error: &NoSuchProject) -> String {
    match error {
        NoSuchProject::Unknown(name) => {
            format!("스튜디오에 프로젝트 {name:?}이(가) 없습니다; scenemesh project ls로 목록을 보세요")
        }
        NoSuchProject::Ambiguous(name) => {
            format!("{name:?}에 해당하는 프로젝트가 둘 이상입니다; scenemesh project ls에 나온 ID를 쓰세요")
        }
    }
}

pub(super) fn project(error: &CannotProject) -> String {
    match error {
        CannotProject::NoPool => "이 노드는 풀에 없습니다; init으로 만들거나 join으로 들어가세요".into(),
        CannotProject::NoAdminKey { studio } => {
            format!("이 컴퓨터에는 {studio}의 관리자 키가 없습니다; 스튜디오를 만든 컴퓨터에서 실행하세요")
        }
        CannotProject::Locked => "관리자 키가 잠겨 있습니다; --passphrase-file로 암호를 주세요".into(),
        CannotProject::BadName(name) => {
            format!("{name:?}은(는) 프로젝트 이름이 될 수 없습니다; 제어 문자 없이 1~64바이트로 지으세요")
        }
        CannotProject::NameTaken(name) => format!(
            "스튜디오에 프로젝트 {name:?}이(가) 이미 있습니다; 다른 이름을 쓰거나 project set으로 바꾸세요"
        ),
        CannotProject::Unknown(error) => no_project(error),
        CannotProject::Refused(_) => {
            "프로젝트 기록이 성립하지 않습니다; 지정한 범위와 노드를 확인하세요".into()
        }
    }
}

pub(super) fn invite(error: &CannotInvite) -> String {
    match error {
        CannotInvite::NoPool => {
            "이 노드는 풀에 없습니다; 먼저 scenemesh init 또는 scenemesh join을 실행하세요".into()
        }
        CannotInvite::NotMember => "이 노드는 지금 풀의 구성원이 아닙니다; scenemesh pool을 보세요".into(),
        CannotInvite::Solo => {
            "1인용(solo) 풀이라 누가 들어올 포트를 열지 않습니다; 남이 들어올 수 있는 풀은 scenemesh leave 다음에 --solo 없이 init으로 만드세요"
                .into()
        }
        CannotInvite::Locked => "관리자 키가 잠겨 있습니다; --passphrase-file로 암호를 주세요".into(),
        CannotInvite::NoAdminKey { studio } => {
            format!("이 노드에는 {studio} 스튜디오의 관리자 키가 없습니다; 키가 있는 컴퓨터에서 초대하세요")
        }
        CannotInvite::BadName(name) => {
            format!(
                "{name:?} 값은 스튜디오 이름으로 쓸 수 없습니다: 비었거나 너무 길거나 제어 문자가 있습니다; 다른 이름을 쓰세요"
            )
        }
        CannotInvite::StudioExists(name) => {
            format!("풀에 이미 {name} 스튜디오가 있습니다; --new-studio에 다른 이름을 쓰세요")
        }
        CannotInvite::NoRole => {
            "구성원에게는 역할이 하나 이상 필요합니다; --role에 submit, render, keep 중에서 쓰세요".into()
        }
        CannotInvite::NoPorch => {
            "현관(porch) 포트가 닫혀 있어 아무도 들어올 수 없습니다; 설정의 porch와 로그를 확인하세요".into()
        }
        CannotInvite::Refused(NoInvite::TooMany) => {
            "열린 초대가 너무 많습니다; 쓰이거나 만료될 때까지 기다리세요".into()
        }
        CannotInvite::Refused(NoInvite::Expiry) => {
            "초대의 유효 기간은 1분에서 30일까지입니다; --expires를 24h나 7d처럼 쓰세요".into()
        }
    }
}

pub(super) fn code(error: &BadInvite) -> String {
    match error {
        BadInvite::NotAnInvite => {
            "초대 코드가 아닙니다: 초대 코드는 smesh1로 시작합니다; 초대한 곳에서 한 줄 전체를 복사하세요"
                .into()
        }
        BadInvite::Damaged => {
            "초대 코드가 손상되었습니다: 틀리거나 빠진 글자가 있습니다; 코드 전체를 다시 복사하세요".into()
        }
        BadInvite::Version { theirs } => {
            format!("이 버전에서 읽을 수 없는 초대 코드입니다 (버전 {theirs}); 오래된 쪽을 업그레이드하세요")
        }
    }
}

pub(super) fn join(error: &CannotJoin) -> String {
    match error {
        CannotJoin::AlreadyMember(pool) => {
            format!("이 노드는 이미 {pool} 풀의 구성원입니다; scenemesh peers로 다른 노드를 보세요")
        }
        CannotJoin::OtherPool { invited, mine } => format!(
            "{invited} 풀의 초대인데 이 노드는 {mine} 풀에 있습니다; 먼저 scenemesh leave를 실행하세요"
        ),
        CannotJoin::Solo(pool) => format!(
            "이 노드는 아무도 들어올 수 없는 1인용(solo) 풀 {pool}에 있습니다; scenemesh leave로 끝낸 다음 다시 join하세요"
        ),
        CannotJoin::OwnInvite => "이 노드가 만든 초대입니다; 다른 컴퓨터에서 쓰세요".into(),
        CannotJoin::BadName(name) => {
            format!(
                "{name:?} 값은 노드 이름으로 쓸 수 없습니다: 비었거나 64바이트를 넘거나 제어 문자가 있습니다; 다른 이름을 쓰세요"
            )
        }
    }
}

pub(super) fn refusal(reason: JoinRefusal) -> String {
    match reason {
        JoinRefusal::UnknownInvite => {
            "초대한 노드가 모르는 초대입니다; 초대는 만든 노드에서만 쓸 수 있으니 새 초대를 받으세요"
        }
        JoinRefusal::Expired => "초대가 만료되었습니다; 새 초대를 받으세요",
        JoinRefusal::Used => {
            "다른 컴퓨터에서 이미 쓴 초대입니다; 우리 컴퓨터가 아니라면 관리자에게 알리고 새 초대를 받으세요"
        }
        JoinRefusal::BadRequest => "가입 요청이 검증되지 않았습니다; 새 초대를 받아 다시 시도하세요",
        JoinRefusal::RevokedKey => {
            "이 노드의 키는 폐기되었습니다; 새 데이터 폴더로 시작해 새 키로 들어오세요"
        }
        JoinRefusal::NameTaken => {
            "풀에 같은 이름의 노드나 스튜디오가 있습니다; --name으로 다른 이름을 쓰세요"
        }
        JoinRefusal::AdminKey => "초대가 스튜디오를 새로 만드는지에 대해 양쪽이 다릅니다; 새 초대를 받으세요",
        JoinRefusal::Version => "이 버전은 풀이 받아들이는 최소 버전보다 낮습니다; 업그레이드하세요",
    }
    .into()
}

pub(super) fn approve(error: &CannotApprove) -> String {
    match error {
        CannotApprove::NoPool => {
            "이 노드는 풀에 없습니다; 먼저 scenemesh init 또는 scenemesh join을 실행하세요".into()
        }
        CannotApprove::Nothing => {
            "승인을 기다리는 변경이 없습니다; scenemesh pool에서 변경을 볼 수 있습니다".into()
        }
        CannotApprove::Unknown { given, pending } => {
            format!("{given:?}에 맞는 변경이 없습니다. 기다리는 변경: {pending}")
        }
        CannotApprove::Ambiguous { pending } => {
            format!("맞는 변경이 둘 이상입니다. 어느 것인지 정하세요: {pending}")
        }
        CannotApprove::Locked => "관리자 키가 잠겨 있습니다; --passphrase-file로 암호를 주세요".into(),
        CannotApprove::NoAdminKey { studio } => {
            format!("이 노드에는 {studio} 스튜디오의 관리자 키가 없습니다; 키가 있는 컴퓨터에서 승인하세요")
        }
    }
}

pub(super) fn keys(error: &KeysError) -> String {
    match error {
        KeysError::Io { path, source, .. } => {
            format!("키 파일 {}: {source}; 파일 소유자와 디스크를 확인하세요", path.display())
        }
        KeysError::TooOpen { path } => {
            let path = path.display();
            format!("다른 사용자가 읽을 수 있는 키 파일입니다: {path}; chmod 600 {path} 명령을 실행하세요")
        }
        KeysError::Damaged { path, .. } | KeysError::Admin { path, .. } => {
            format!("손상된 키 파일입니다: {}; 백업에서 되살리세요", path.display())
        }
        KeysError::HalfGone { path } => {
            format!("{} 파일이 없고 node.key만 있습니다; 백업에서 되살리세요", path.display())
        }
        KeysError::NoAdminKey { path } => {
            format!(
                "이 컴퓨터에는 관리자 키가 없습니다 ({}); 키가 있는 컴퓨터에서 실행하세요",
                path.display()
            )
        }
        KeysError::NeedsPassphrase { .. } => {
            "관리자 키가 암호로 잠겨 있습니다; --passphrase-file로 암호를 주세요".into()
        }
        KeysError::DoesNotOpen { .. } => {
            "암호가 틀렸습니다: 관리자 키가 열리지 않습니다; 암호를 다시 주거나 백업에서 키 파일을 되살리세요"
                .into()
        }
        KeysError::EmptyPassphrase => {
            "빈 암호는 아무것도 지키지 못합니다; 더 긴 암호를 쓰거나 --no-passphrase를 쓰세요".into()
        }
    }
}

pub(super) fn porch(error: &PorchError) -> String {
    match error {
        PorchError::NoAddress(_) => "초대한 노드의 주소가 없습니다; 새 초대를 받으세요".into(),
        PorchError::Unreachable { addresses, cause, .. } => format!(
            "초대한 노드에 연결할 수 없습니다 ({addresses}): {}; 그쪽 데몬이 실행 중이고 현관 포트(7873)가 열려 있는지 확인하세요",
            phrase(Lang::Ko, cause)
        ),
        PorchError::WrongNode { address, .. } => {
            format!("{address} 주소에 다른 컴퓨터가 있습니다; 새 초대를 받으세요")
        }
        PorchError::TimedOut(_) => {
            "초대한 노드가 제시간에 응답하지 않았습니다; 잠시 뒤 다시 시도하세요".into()
        }
        PorchError::Closed { cause, .. } => {
            format!(
                "초대한 노드가 답 없이 연결을 끊었습니다: {}; 1분 뒤 다시 시도하세요",
                phrase(Lang::Ko, cause)
            )
        }
        PorchError::Garbled { .. } => {
            "초대한 노드의 응답을 이 버전에서는 해석할 수 없습니다; 오래된 쪽을 업그레이드하세요".into()
        }
        PorchError::Setup(why) => format!("연결을 준비하지 못했습니다: {why}"),
    }
}

pub(super) fn submit(error: &SubmitError) -> String {
    let said = |text: &dyn std::fmt::Display| phrase(Lang::Ko, &text.to_string());
    match error {
        SubmitError::Graph(error) => graph(error),
        SubmitError::TooLarge { bytes } => format!(
            "워크플로가 {bytes}바이트로 한도({}바이트)를 넘습니다; 큰 파일은 --input으로 보내세요",
            crate::scheduler::GRAPH_LIMIT
        ),
        SubmitError::Count { count } => {
            format!("작업의 태스크는 1개에서 {}개까지인데 {count}개입니다", crate::scheduler::COUNT_LIMIT)
        }
        SubmitError::TooManyKinds { count } => format!(
            "바꾸는 입력 때문에 필요한 모델과 파일의 조합이 {count}가지입니다, 64가지까지 됩니다; 작업을 나누세요"
        ),
        SubmitError::NothingVaried { path } => format!("바꿀 입력 {path}에 값이 없습니다"),
        SubmitError::TooManyStages { count } => format!(
            "작업의 단계가 {count}개입니다, {}개까지 됩니다; 나누세요",
            crate::scheduler::STAGES_LIMIT
        ),
        SubmitError::NoSuchSource { name, node, known } => {
            format!("입력 {name:?}: 앞 워크플로에 노드 {node} 없음; 있는 노드: {known}")
        }
        SubmitError::UnevenSources { name, from, other } => format!(
            "입력 {name:?}의 단계는 태스크가 {from}개이고 다른 입력의 단계는 {other}개라서 하나씩 짝지을 수 없습니다; 이름에 {{i}}를 넣어 모으세요"
        ),
        SubmitError::TooManyInputs { count } => {
            format!(
                "작업의 입력이 {count}개입니다, 태스크 하나에 1024개까지 됩니다; 프레임은 동영상으로 보내거나 작업을 나누세요"
            )
        }
        SubmitError::InputsTooLarge { bytes } => {
            format!("입력이 모두 {bytes}바이트입니다, 태스크 하나에 64 GiB까지 됩니다; 작업을 나누세요")
        }
        SubmitError::TooVaried { count } => {
            format!(
                "워크플로에 노드 클래스나 모델이 {count}가지 필요합니다, {SHAPE_LIMIT}가지까지 됩니다; 나누세요"
            )
        }
        SubmitError::MissingInput { name } => {
            format!("워크플로에 적힌 파일 {name:?} 없음; --input {name}=FILE을 더하세요")
        }
        SubmitError::UnusedInput { name, known } => {
            format!("워크플로의 어느 노드에도 입력 {name:?} 없음; 있는 이름: {known}")
        }
        SubmitError::Partner { node, class } => format!(
            "노드 {node} ({class})는 누군가의 돈을 쓰는 파트너 노드라서 풀의 어느 컴퓨터에서도 실행하지 않습니다; 그 노드를 빼세요"
        ),
        SubmitError::Token { node, key } => format!(
            "노드 {node}에 comfy.org 자격 증명({key})이 있습니다. 자격 증명은 어떤 태스크로도 이 컴퓨터를 떠나지 않습니다; 지우세요"
        ),
        SubmitError::ExtraData(why) => format!("extra_data가 JSON 객체가 아닙니다: {why}"),
        SubmitError::Input { name, source } => {
            format!("입력 {name:?} 파일이 저장소에 더는 없습니다: {}; 다시 보내세요", said(source))
        }
        SubmitError::Deputy { node, why } => {
            let why = match why {
                NoDeputy::Me => "작업이 이미 있는 이 컴퓨터입니다",
                NoDeputy::NotOfStudio => {
                    "이 스튜디오의 노드가 아닙니다: 작업은 같은 스튜디오의 노드에만 보관합니다"
                }
                NoDeputy::LacksRole => {
                    "keep 역할이 없습니다: `scenemesh invite --role keep`으로 초대한 노드에 있습니다"
                }
                NoDeputy::OutOfReach => "작업이나 프로젝트의 범위 밖입니다",
            };
            format!("{node}: {why}")
        }
        SubmitError::Journal(error) => journal(error),
        SubmitError::Stopping => "데몬이 종료하는 중입니다".into(),
    }
}

fn journal(error: &JournalError) -> String {
    format!("작업을 기록할 수 없습니다: {}", phrase(Lang::Ko, &error.to_string()))
}

/// Only what a person can do something about.
pub(super) fn blob(error: &BlobError) -> Option<String> {
    match error {
        BlobError::Quota { used, quota, .. } => Some(format!(
            "저장 한도를 넘습니다: {quota}바이트 중 {used}바이트를 쓰고 있습니다; 결과를 받아 가거나 한도를 늘리세요"
        )),
        BlobError::NoSpace { dir, free, .. } => {
            Some(format!("{} 디스크에 공간이 부족합니다: {free}바이트 남음; 공간을 비우세요", dir.display()))
        }
        BlobError::Unknown { .. } => Some("결과가 이 노드에 더는 없습니다".into()),
        _ => None,
    }
}
