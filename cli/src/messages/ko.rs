//! Korean.

use super::{Message, Word};

pub(super) const fn word(word: Word) -> &'static str {
    match word {
        Word::AdminKey => "관리자 키",
        Word::Admins => "관리자",
        Word::Age => "경과",
        Word::Attempts => "시도",
        Word::Busy => "작업 중",
        Word::Cancelled => "취소됨",
        Word::Change => "변경",
        Word::CheckWords => "확인 단어",
        Word::Blocked => "차단됨",
        Word::Class => "등급",
        Word::Closed => "닫힘",
        Word::Code => "코드",
        Word::Confirmed => "확인한 노드",
        Word::Daemon => "데몬",
        Word::DataDir => "데이터 폴더",
        Word::Done => "완료",
        Word::DoneTotal => "완료/전체",
        Word::Down => "연결 끊김",
        Word::Epoch => "에포크",
        Word::Error => "오류",
        Word::Expires => "만료",
        Word::Failed => "실패",
        Word::Fetching => "받는 중",
        Word::Good => "정상",
        Word::Gpu => "GPU",
        Word::Granted => "준비 중",
        Word::Here => "이 컴퓨터",
        Word::Hint => "도움말",
        Word::Hygiene => "정리",
        Word::Id => "ID",
        Word::Idle => "유휴",
        Word::Job => "작업",
        Word::Label => "이름",
        Word::LastTime => "지난번",
        Word::Lending => "빌려주기",
        Word::LearnLater => "나중에 알 노드",
        Word::Listening => "수신 주소",
        Word::Look => "주의",
        Word::Missing => "부족",
        Word::Models => "모델",
        Word::Name => "이름",
        Word::Never => "없음",
        Word::NewStudio => "새 스튜디오",
        Word::NoAnswer => "응답 없음",
        Word::NoSlots => "GPU 없음",
        Word::Node => "노드",
        Word::Nodes => "노드",
        Word::None => "없음",
        Word::NotConfigured => "(scenemesh.toml에 없음)",
        Word::NotNow => "지금은 불가",
        Word::NotReady => "준비 안 됨",
        Word::NotSealed => "암호 없음",
        Word::Now => "지금",
        Word::Open => "열림",
        Word::OtherMachine => "다른 곳",
        Word::Output => "결과",
        Word::Path => "경로",
        Word::Peers => "피어",
        Word::Pool => "풀",
        Word::Progress => "진행",
        Word::Project => "프로젝트",
        Word::Queued => "대기",
        Word::Reach => "범위",
        Word::Ready => "준비됨",
        Word::RecoveryCode => "복구 코드",
        Word::RefusedState => "거부됨",
        Word::Retention => "보관",
        Word::Role => "역할",
        Word::Revoked => "폐기됨",
        Word::Roles => "역할",
        Word::Rotated => "새 키로 교체됨",
        Word::Rtt => "왕복 시간",
        Word::Running => "렌더링 중",
        Word::Sealed => "암호로 잠김",
        Word::Seen => "마지막 연결",
        Word::SignedAgain => "다시 서명함",
        Word::SignedBy => "서명한 곳",
        Word::SomebodysJob => "다른 사람의 작업",
        Word::Solo => "1인용",
        Word::Starting => "시작 중",
        Word::State => "상태",
        Word::StoppedHere => "여기서 중단한 태스크",
        Word::Studio => "스튜디오",
        Word::Submitted => "제출",
        Word::KeptOn => "함께 보관",
        Word::KeptFor => "보관 대상",
        Word::TakenBack => "되가져온 우리 태스크",
        Word::Task => "태스크",
        Word::Tasks => "태스크",
        Word::Time => "시간",
        Word::Version => "버전",
        Word::VramFreeTotal => "VRAM 여유/전체",
        Word::Weight => "가중치",
        Word::What => "내용",
        Word::AllowedByHand => "직접 허용",
        Word::Always => "항상",
        Word::Classes => "종류",
        Word::DeniedByHand => "직접 금지",
        Word::Elsewhere => "알려진 바로는",
        Word::Everybody => "모든 스튜디오",
        Word::Everything => "전부",
        Word::Family => "분류",
        Word::From => "출처",
        Word::Hours => "시간",
        Word::Input => "입력",
        Word::Lent => "빌려주는 중",
        Word::LentTo => "빌려주는 곳",
        Word::List => "목록",
        Word::MostVram => "최대 VRAM",
        Word::Unlimited => "제한 없음",
        Word::Why => "이유",
        Word::Wrong => "문제",
    }
}

/// One that a newer daemon names stays as it is.
pub(super) fn check(name: &str) -> &str {
    match name {
        "daemon" => "데몬",
        "data_dir" => "데이터 폴더",
        "disk" => "디스크",
        "pool" => "풀",
        "ports" => "포트",
        "comfyui" => "ComfyUI",
        "hygiene" => "정리",
        "gpu" => "GPU",
        "peers" => "피어들",
        "peer" => "피어",
        "clock" => "시계",
        other => other,
    }
}

/// What the operating system says most often; the rest stays as it comes.
fn system(why: &str) -> &str {
    match why {
        "No such file or directory" => "파일이나 폴더가 없음",
        "Permission denied" => "권한이 없음",
        "Is a directory" => "폴더임",
        "Not a directory" => "폴더가 아님",
        "File exists" => "이미 있음",
        "No space left on device" => "디스크에 남은 공간이 없음",
        "Read-only file system" => "읽기 전용 파일 시스템",
        "Connection refused" => "연결이 거부됨",
        other => other,
    }
}

#[expect(clippy::too_many_lines, reason = "one line per sentence")]
pub(super) fn text(message: &Message) -> String {
    match message {
        Message::NoCommand => "명령이 없습니다".into(),
        Message::UnknownCommand { command } => format!("{command:?} 명령은 없습니다"),
        Message::UnknownArgument { argument } => format!("{argument:?} 인수는 여기서 쓸 수 없습니다"),
        Message::MissingArgument { argument } => format!("{argument} 인수가 빠졌습니다"),
        Message::MissingValue { argument } => format!("{argument} 인수에 값이 필요합니다"),
        Message::ArgumentsConflict { argument, other } => {
            format!("{argument}, {other} 인수는 함께 쓸 수 없습니다")
        }
        Message::BadValue { argument, value } => format!("{argument} 값으로 {value:?} 값을 쓸 수 없습니다"),
        Message::BadCommandLine { why } => format!("명령줄을 해석할 수 없습니다: {why}"),
        Message::HintHelp => {
            "scenemesh --help에 명령 목록이, scenemesh 명령 --help에 인수 설명이 있습니다".into()
        }
        Message::HintDidYouMean { word } => format!("혹시 {word} 아닌가요?"),
        Message::HintWriteLike { example } => format!("이렇게 씁니다: {example}"),

        Message::NoDataDir => "홈 폴더가 없어서 데몬의 데이터 폴더가 어디인지 알 수 없습니다".into(),
        Message::HintDataDir => "--data-dir DIR 또는 SCENEMESH_DATA_DIR 환경 변수로 지정하세요".into(),
        Message::NoAddress { path } => format!("데몬이 실행 중이 아닙니다: {path} 파일이 없습니다"),
        Message::AddressNotReadable { path } => {
            format!("{path} 파일을 읽을 권한이 없습니다: 데몬을 실행한 사용자의 파일입니다")
        }
        Message::GarbledAddress { path } => format!("{path} 파일에 데몬의 주소가 없습니다"),
        Message::NobodyAnswers { url, path } => {
            format!("데몬이 실행 중이 아닙니다: {path} 파일에 적힌 {url} 주소에서 응답이 없습니다")
        }
        Message::AnswerBroke { url, why } => format!("데몬({url})의 응답이 도중에 끊겼습니다: {why}"),
        Message::AnswerTimedOut { url } => format!("데몬({url})이 제시간에 응답하지 않았습니다"),
        Message::AnswerNotOurs { url, why } => {
            format!("{url}의 응답을 이 버전에서는 해석할 수 없습니다: {why}")
        }
        Message::DaemonWentAway => "데몬과 연결이 끊겼습니다. 1분 동안 다시 찾아봅니다".into(),
        Message::DaemonIsBack => "데몬과 다시 연결되었습니다".into(),
        Message::DaemonStaysAway => "데몬과 연결이 끊긴 뒤 다시 연결되지 않았습니다".into(),
        Message::HintStartDaemon { data_dir } => {
            format!("데몬을 시작하세요: scenemeshd --data-dir {data_dir}")
        }
        Message::HintSameUser => "그 사용자로 실행하세요".into(),
        Message::HintCheckDataDir => "폴더와 소유자를 확인하세요".into(),
        Message::HintDoctor => "scenemesh doctor 명령으로 문제를 찾아보세요".into(),
        Message::HintSameRelease => {
            "scenemesh와 scenemeshd는 같은 버전을 쓰세요 (scenemesh --version, scenemeshd --version)".into()
        }
        Message::HintJobGoesOn => {
            "작업은 데몬의 기록에 남아 있고 데몬이 다시 시작되면 이어집니다: scenemesh jobs".into()
        }
        Message::OurBug { what } => format!("일어나서는 안 될 일이 일어났습니다: {what}"),
        Message::HintOurBug => "SceneMesh의 버그입니다. 이 줄과 함께 알려 주세요".into(),

        Message::CannotRead { path, why } => format!("{path} 파일을 읽을 수 없습니다: {}", system(why)),
        Message::CannotWrite { path, why } => format!("{path} 위치에 쓸 수 없습니다: {}", system(why)),
        Message::CutOff { path, bytes, of } => {
            format!("{path}: {of}바이트 중 {bytes}바이트만 도착해서 저장하지 않았습니다")
        }
        Message::HintCheckPath => "경로와 읽기 권한을 확인하세요".into(),
        Message::HintCheckDisk => "경로와 권한, 디스크의 남은 공간을 확인하세요".into(),
        Message::HintFetchAgain => "scenemesh fetch ID --out DIR 명령으로 나머지를 받으세요".into(),

        Message::AskNewPassphrase => "관리자 키의 새 암호: ".into(),
        Message::AskPassphraseAgain => "한 번 더: ".into(),
        Message::AskPassphrase => "관리자 키의 암호: ".into(),
        Message::AskContinue => "계속할까요? [y/N]".into(),
        Message::AskLeave => "풀에서 나갈까요? 다시 들어오려면 관리자가 새로 초대해야 합니다. [y/N]".into(),
        Message::CannotAsk { why } => format!("터미널에서 입력을 받을 수 없습니다: {why}"),
        Message::EmptyPassphrase => "암호가 비어 있습니다".into(),
        Message::EmptyPassphraseFile { path } => format!("{path} 파일의 첫 줄이 비어 있습니다"),
        Message::PassphrasesDiffer => "두 암호가 서로 다릅니다".into(),
        Message::NobodyToAsk => "확인이 필요하지만 물어볼 터미널이 없습니다".into(),
        Message::NobodyToAskPassphrase => "암호가 필요하지만 물어볼 터미널이 없습니다".into(),
        Message::HintPassphraseFile => "암호를 파일에 적고 --passphrase-file FILE 옵션을 쓰세요".into(),
        Message::HintNoPassphrase => "암호 없이 쓰려면 --no-passphrase 옵션을 쓰세요".into(),
        Message::HintTryAgain => "다시 시도하세요".into(),
        Message::Wiped { index, node, wiped, left } => {
            format!("#{index} {node}에서 지움: {wiped}; 남음: {left}")
        }
        Message::NotWiped { index, node, left } => format!(
            "경고: 태스크 #{index}은(는) 아무것도 남기지 않아야 하지만 {node}에 남아 있습니다: {left}; 그 소유자에게 삭제를 요청하세요"
        ),
        Message::NoWipe { index, node } => format!(
            "경고: 태스크 #{index}은(는) 아무것도 남기지 않아야 하지만 {node}이(가) 무엇을 지웠는지 알리지 않았습니다; 그 소유자에게 확인하세요"
        ),
        Message::Nothing => "없음".into(),
        Message::HintYes => "--yes 옵션을 붙이면 묻지 않고 진행합니다".into(),

        Message::KeepRecoveryCode => {
            "복구 코드는 두 번째 관리자 키입니다. 다시 보여 드리지 않으니 지금 적어 두세요".into()
        }
        Message::NextInvite => "다음: 다른 컴퓨터를 부르려면 scenemesh invite".into(),
        Message::NextSubmit => "다음: scenemesh submit WORKFLOW.json --out DIR".into(),
        Message::NextJoin { code } => format!("다음, 다른 컴퓨터에서: scenemesh join {code}"),
        Message::NextInitOrJoin => {
            "다음: scenemesh init으로 풀을 만들거나 scenemesh join CODE로 들어가세요".into()
        }
        Message::NextApprove => "다음: scenemesh pool approve로 변경에 서명하세요".into(),
        Message::InvitesUnlocked { count } => format!("지금 쓸 수 있는 초대: {count}개"),
        Message::InviteSays { pool, inviter, check } => {
            format!(
                "풀         {pool}\n초대한 곳  {inviter}\n확인 단어  {check}\n초대한 사람이 읽어 주는 단어와 같아야 합니다"
            )
        }
        Message::Joining { inviter, addresses } => format!("…{inviter}에 요청하는 중: {addresses}"),
        Message::NewStudioNeedsKey => {
            "새 스튜디오를 만드는 초대입니다. 관리자 키를 이 컴퓨터에서 만듭니다".into()
        }
        Message::Joined { peers_up } => format!("풀에 들어왔습니다. 연결된 피어: {peers_up}"),
        Message::NotJoined => "요청하신 대로 들어가지 않았습니다. 초대는 아직 쓸 수 있습니다".into(),
        Message::InviteIsLocked => {
            "아직 들어가지 못했습니다: 초대한 쪽이 다시 시작되어 관리자 키가 잠겨 있습니다. 이 노드는 계속 요청합니다".into()
        }
        Message::HintUnlock => "초대한 컴퓨터에서: scenemesh invite --unlock".into(),
        Message::HintCompareWords => "단어가 달랐다면 다른 사람이 만든 초대입니다. 새 초대를 받으세요".into(),
        Message::AwaitingApproval { signatures_missing } => format!(
            "새 스튜디오가 다른 스튜디오의 서명을 기다립니다: {signatures_missing}개 부족 \
             (그쪽에서 scenemesh pool approve). 서명이 모이면 저절로 들어갑니다"
        ),
        Message::ApprovedInForce { change } => format!("서명했고 이제 적용됩니다: {change}"),
        Message::ApprovedWaiting { change, missing } => {
            format!("서명했습니다: {change} (남은 서명 {missing}개)")
        }
        Message::Left { pool, told } => format!("{pool} 풀에서 나왔습니다. 소식을 받은 피어: {told}"),
        Message::NotLeft => "요청하신 대로 나가지 않았습니다".into(),
        Message::JoinGivenUp => "들어가려던 요청을 거두었습니다".into(),
        Message::NoPeers => "풀에 다른 노드가 없습니다".into(),
        Message::LeftRecordStays { pool } => format!(
            "이 노드의 기록은 스튜디오 관리자가 폐기할 때까지(scenemesh revoke NODE) {pool} 풀에 남습니다. \
             그때까지는 초대를 받으면 같은 키로 돌아올 수 있습니다"
        ),

        Message::CannotRecall { name } => format!("{name} 노드에 이미 전달된 파일은 되돌릴 수 없습니다"),
        Message::Fallen { names } => {
            format!("그 키만으로 들어와 이제 구성원이 아닌 노드: {names}. 다시 초대하세요")
        }
        Message::Blocked { name, until } => format!(
            "{until}까지 이 스튜디오의 컴퓨터들이 {name} 노드를 차단합니다. 풀려면 scenemesh block {name} --lift"
        ),
        Message::GivenBackIn { took } => format!("{took} 만에 되찾음"),
        Message::NextLendOffUntil => "정한 시각까지 GPU를 혼자 쓰려면: scenemesh lend off --until 시각".into(),
        Message::NotFreeYet => "GPU가 아직 비지 않았습니다: 멈추라고 한 것이 ComfyUI에서 계속 돌고 있습니다".into(),
        Message::HintNotFreeYet => {
            "scenemesh lend status로 확인하세요. 모델을 읽는 동안 ComfyUI는 중단할 수 없고, 다시 시작하면 됩니다".into()
        }
        Message::StillHeld => "ComfyUI가 비디오 메모리를 아직 쥐고 있습니다".into(),
        Message::HintStillHeld => "메모리가 필요하면 ComfyUI를 다시 시작하세요".into(),
        Message::NothingForOthers => "다른 사람의 일 없음".into(),
        Message::BeingStopped => "멈추는 중".into(),
        Message::StillNeeds { left } => format!("약 {left} 남음"),
        Message::VramWent { before, after } => format!("사용 중 {before} → {after} GiB"),
        Message::DrainsNow { running, results } => {
            format!("새 일을 받지 않습니다. 여기서 도는 것: {running}, 아직 가져가지 않은 결과: {results}")
        }
        Message::IsDrained => {
            "여기 남은 것이 없습니다. scenemesh drain --off 또는 다시 시작할 때까지 새 일을 받지 않습니다".into()
        }
        Message::TakesWorkAgain => "다시 일을 받습니다".into(),
        Message::DaemonHasEnded => "남은 것이 없어 데몬이 끝났습니다".into(),
        Message::DrainEnded => "그사이 누군가 비우기(drain)를 끝냈습니다".into(),
        Message::HintDrainEnded => "다시 시작하려면: scenemesh drain".into(),
        Message::BlockLifted { name } => format!("{name} 노드의 차단을 풀었습니다"),
        Message::BlockedFor { left, reason } if reason.is_empty() => format!("남은 시간 {left}"),
        Message::BlockedFor { left, reason } => format!("남은 시간 {left}: {reason}"),
        Message::NextCountersign { code } => format!(
            "다음: 스튜디오의 관리자 키가 있는 컴퓨터에서 scenemesh rotate --countersign {code}\n\
             이 노드는 스스로 알아차리고 새 키로 이어 갑니다"
        ),
        Message::Rotating => "데몬이 제자리에서 새 키로 다시 시작합니다".into(),
        Message::RotatedHere { node } => {
            format!("이 노드는 이제 {node}입니다. 옛 키는 어디서나 거부됩니다")
        }
        Message::RotatedOther { name, node } => {
            format!("{name} 노드는 {node}(으)로 이어 갑니다. 옛 키는 어디서나 거부됩니다")
        }
        Message::AskRecoveryCode => "복구 코드: ".into(),
        Message::NobodyToAskCode => "복구 코드가 필요하지만 물어볼 터미널이 없습니다".into(),
        Message::HintCodeFile => "파일에 적어 --code-file FILE로 넘기세요".into(),
        Message::NextAdminAdd { key } => {
            format!("다음: 스튜디오의 관리자 키가 있는 컴퓨터에서 scenemesh admin add {key}")
        }
        Message::NextAfterRecovery => {
            "옛 키가 남의 손에 있을 수 있으면 scenemesh revoke --admin KEY --reason stolen, 그런 다음 새 종이 키를 \
             만드세요: scenemesh admin new --paper"
                .into()
        }
        Message::AdminMovedAside { path } => format!("여기 있던 관리자 키를 {path}(으)로 옮겼습니다"),
        Message::NextSecondAdmin => {
            "이 컴퓨터를 잃을 때를 대비해 다른 컴퓨터에서 scenemesh admin new, 여기서 scenemesh admin add KEY".into()
        }
        Message::SoloSockets => "루프백 말고는 소켓을 열지 않으며 아무도 들어올 수 없습니다".into(),

        Message::NextProject { name } => format!("다음: scenemesh submit WORKFLOW.json --project {name:?}"),
        Message::NoProjects => "스튜디오에 프로젝트가 없습니다. 만들기: scenemesh project add NAME".into(),
        Message::NoSuchProject { name } => format!("스튜디오에 프로젝트 {name:?}이(가) 없습니다"),
        Message::HintProjects => "프로젝트 목록: scenemesh project ls".into(),
        Message::NoUsers => "데몬의 사용자 말고는 토큰이 없습니다. 주기: scenemesh user add NAME".into(),
        Message::UserRemoved { name } => format!("{name}의 토큰은 이제부터 거부됩니다"),
        Message::TokenHandedOver { name, path } => format!(
            "{name}의 토큰은 {path}에 있으며 {name}만 읽을 수 있습니다. ~{name}/.config/scenemesh/api.json에 두면 됩니다"
        ),
        Message::TokenToHandOver { name, path } => format!(
            "{name}의 토큰은 {path}에 있으며 지금은 당신만 읽을 수 있습니다. root로 넘겨주세요: install -D -m 600 -o {name} \
             {path} ~{name}/.config/scenemesh/api.json, 그런 다음 {path}은(는) 지우세요"
        ),
        Message::NoSuchOsUser { name, path } => format!(
            "이 컴퓨터에는 {name} 사용자가 없습니다. {path}의 토큰은 그대로 쓸 수 있으며, 가진 사람이 {name}이(가) 됩니다"
        ),
        Message::PolicyList { version, comfyui, allowed, denied } => {
            format!("ComfyUI {comfyui}용 버전 {version}: 허용 {allowed}개, 금지 {denied}개. 목록에 없는 클래스도 금지")
        }
        Message::PolicyFindsNothing => "이 노드는 이 워크플로에서 아무것도 거절하지 않습니다".into(),
        Message::PolicyRefuses { count } => {
            format!("다른 컴퓨터가 보내면 이 노드는 거절합니다: {count}건")
        }
        Message::HintPolicyRefuses => {
            "워크플로를 고치거나, 믿을 수 있는 클래스라면 scenemesh policy allow CLASS를 쓰세요".into()
        }
        Message::NextAllow { class } => format!("다른 컴퓨터의 태스크에도 허용하려면: scenemesh policy allow {class:?}"),

        Message::RunningSince { version, up } => format!("scenemeshd {version}, 실행한 지 {up}"),
        Message::PeersUp { up, total } => format!("피어 {total}개 중 {up}개 연결됨"),
        Message::TasksNow { running, queued } => format!("렌더링 중 {running}, 대기 {queued}"),
        Message::NoComfyui => "이 컴퓨터에 ComfyUI가 없습니다: 제출만 하고 렌더링은 하지 않습니다".into(),
        Message::ComfyuiNotConfigured { url } => format!(
            "{url}에서 ComfyUI가 응답합니다. 렌더링에 쓰려면 scenemesh.toml에 아래 내용을 넣고 데몬을 다시 시작하세요:\n\
             [[comfyui]]\nurl = \"{url}\""
        ),
        Message::DaemonAnswers { url } => format!("{url}에서 응답합니다"),
        Message::ChecksFailed { count } => format!("문제가 있는 항목: {count}개"),
        Message::JournalExported { path, bytes } => {
            format!("{path}: {bytes}. 프롬프트와 이름이 들어 있으니 키처럼 보관하세요")
        }
        Message::JournalImported { records } => format!("항목 {records}개를 받았습니다"),
        Message::NextRestart => "다음: scenemeshd를 다시 시작하면 제자리에 놓입니다".into(),
        Message::IndexRebuilt { records, took_ms } => {
            format!("색인을 다시 만들었습니다: 항목 {records}개, {took_ms} ms")
        }
        Message::HintChecks => "항목마다 화살표 뒤에 해결 방법이 있습니다".into(),

        Message::WorkflowTooLarge { path, limit } => {
            format!("{path} 파일이 워크플로 한도({limit})보다 큽니다")
        }
        Message::WorkflowNotText { path } => format!("{path} 파일은 JSON이 아닙니다: 텍스트가 아닙니다"),
        Message::CannotReadInput { name, path, why } => {
            format!("입력 {name}: {path} 파일을 읽을 수 없습니다: {}", system(why))
        }
        Message::InputTooLarge { path, bytes, limit } => {
            format!("{path} 파일은 {bytes}로, 입력 한도({limit})보다 큽니다")
        }
        Message::HintNotEmbedded => "그림을 워크플로에 넣지 말고 --input NAME=FILE로 보내세요".into(),
        Message::HintExportApi => "ComfyUI의 Workflow → Export (API) 메뉴로 저장한 파일을 쓰세요".into(),
        Message::HintSmallerInput => "더 작거나 압축된 파일을 보내세요".into(),
        Message::Submitted { job, tasks, reach } => format!("작업 {job}: 태스크 {tasks}개, 범위 {reach}"),
        Message::NextShow { job } => format!("살펴보기: scenemesh show {job}"),
        Message::NextFetch { job } => format!("결과는 데몬에 있습니다: scenemesh fetch {job} --out DIR"),
        Message::Detached { job } => format!(
            "이 명령이 끝나도 작업은 계속됩니다. 다시 보려면: scenemesh show {job} · \
             scenemesh fetch {job} --out DIR · scenemesh cancel {job}"
        ),
        Message::TaskWaits { index, why } => format!("태스크 #{index}: {why}"),
        Message::TaskGranted { index, node } => format!("태스크 #{index} → {node}"),
        Message::TaskRuns { index, node } => format!("태스크 #{index} 렌더링 시작: {node}"),
        Message::TaskProgress { index, node, percent, at } => {
            format!("태스크 #{index} {node}: {percent} % ({at})")
        }
        Message::TaskDone { index, node, took } if took.is_empty() => format!("태스크 #{index} 완료: {node}"),
        Message::TaskDone { index, node, took } => format!("태스크 #{index} 완료: {node}, {took}"),
        Message::TaskFailed { index, why } => format!("태스크 #{index} 실패: {why}"),
        Message::TaskCancelled { index } => format!("태스크 #{index} 취소됨"),
        Message::TaskGivenUp { index, node } if node.is_empty() => {
            format!("태스크 #{index} 다른 노드로 옮겨 갑니다")
        }
        Message::TaskGivenUp { index, node } => {
            format!("태스크 #{index} {node} 대신 다른 노드로 옮겨 갑니다")
        }
        Message::JobProgress { ended, total, running } => {
            format!("태스크 {total}개 중 {ended}개 끝남, {running}개 렌더링 중")
        }
        Message::JobFailed { failed, total, why } => {
            format!("태스크 {total}개 중 {failed}개가 실패했습니다. {why}")
        }
        Message::JobCancelled { job } => format!("작업 {job} 취소됨"),
        Message::HintRetry { job } => {
            format!("scenemesh logs {job}로 경과를 보고 scenemesh retry {job}로 다시 시도하세요")
        }
        Message::NoJobs => "작업이 없습니다".into(),
        Message::MoreJobs { count } => format!("더 오래된 작업 {count}개는 생략했습니다 (--limit N)"),
        Message::CancelledNow { job, state } => format!("작업 {job}: {state}"),
        Message::RetriedNow { job, waiting } => format!("작업 {job}: 태스크 {waiting}개가 다시 대기합니다"),
        Message::PausedNow { job, paused } => {
            format!("작업 {job}: 태스크 {paused}개를 일시 정지했습니다. 실행 중인 것은 계속됩니다")
        }
        Message::ResumedNow { job, waiting } => {
            format!("작업 {job}: 태스크 {waiting}개가 노드를 기다립니다")
        }
        Message::NothingToFetch { job } => format!("작업 {job}: 아직 결과가 없습니다"),
    }
}
