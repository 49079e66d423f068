//! Korean.

use super::{Lang, Message, NotThere, RecordKind, gigabytes, limit_words, milliseconds, phrase};

#[expect(clippy::too_many_lines, reason = "one line per sentence")]
pub(super) fn text(message: &Message) -> String {
    match message {
        Message::NoToken => "요청에 토큰이 없습니다".into(),
        Message::WrongToken => "이 데몬의 토큰이 아닙니다: 토큰은 데몬을 시작할 때마다 바뀝니다".into(),
        Message::ForeignHost { host } => format!("{host:?} 주소로 온 요청인데, 이 데몬의 주소가 아닙니다"),
        Message::ForeignOrigin { origin } => format!("{origin:?} 페이지는 이 데몬과 통신할 수 없습니다"),
        Message::RoleLacking { need } => format!("이 토큰으로는 할 수 없습니다: {need} 역할이 필요합니다"),
        Message::HintToken => "데몬의 데이터 폴더에 있는 api.json에서 url과 token을 읽으세요".into(),
        Message::HintLoopback => "api.json에 적힌 url을 쓰세요".into(),
        Message::SomebodysJob { job } => {
            format!("작업 {job}은(는) 다른 사람의 것입니다: submit 역할로는 자신의 작업만 볼 수 있습니다")
        }
        Message::HintOperate => "데몬을 운영하는 사람에게 operate 역할을 받으세요".into(),
        Message::NoSuchUser { name } => format!("{name}에게는 여기 토큰이 없습니다"),
        Message::BadUserName { given } => format!("{given:?}은(는) 사용자 이름이 아닙니다"),
        Message::UserHasToken { name } => format!("{name}에게는 이미 토큰이 있습니다"),
        Message::TooManyUsers => "토큰 수가 한도에 이르렀습니다".into(),
        Message::HintUsers => "토큰을 가진 사용자 보기: scenemesh user ls".into(),
        Message::HintUserName => "운영체제가 아는 이름을 쓰세요".into(),
        Message::HintUserAgain => {
            "역할은 scenemesh user set으로 바꾸고, 새 토큰이 필요하면 먼저 사용자를 지우세요".into()
        }
        Message::HintRole => "데몬을 운영하는 사람에게 그 역할의 토큰을 받으세요".into(),

        Message::NoSuchPath { path } => format!("API에 {path} 경로가 없습니다"),
        Message::NoSuchMethod { method, path } => format!("{path} 경로는 {method} 요청을 받지 않습니다"),
        Message::BodyNotJson { why } => format!("요청 본문을 해석할 수 없습니다: {why}"),
        Message::BodyTooLarge { limit } => format!("요청 본문이 한도({})보다 큽니다", limit_words(*limit)),
        Message::BodyBroke { why } => format!("요청 본문이 도중에 끊겼습니다: {why}"),
        Message::TooManyRequests => "처리 중인 요청이 너무 많습니다".into(),
        Message::HintSameRelease => "scenemesh와 scenemeshd는 같은 버전을 쓰세요".into(),
        Message::HintSlower => "일부가 끝날 때까지 기다리세요".into(),
        Message::Stopping => "데몬이 종료되는 중입니다".into(),
        Message::HintRestart => "다시 시작한 뒤 다시 요청하세요. 이미 받은 작업은 그대로 남아 있습니다".into(),
        Message::Broke { what } => format!("되어야 할 일이 되지 않았습니다: {what}"),
        Message::HintLog => "자세한 내용은 데몬의 로그에 있습니다. scenemesh doctor로 디스크와 데이터 폴더를 확인하세요".into(),

        Message::BadId { given } => format!("{given:?} 값은 ID가 아닙니다: ID는 16진수입니다"),
        Message::NoSuchId { given } => format!("이 ID로 시작하는 작업이나 태스크가 없습니다: {given}"),
        Message::AmbiguousId { given } => format!("이 ID로 시작하는 작업이나 태스크가 둘 이상입니다: {given}"),
        Message::NoSuchOutput { index, count } => format!("이 태스크의 결과는 {count}개이고 {index}번은 없습니다"),
        Message::NoPreview => "이 태스크의 미리보기가 없습니다".into(),
        Message::NothingToCancel => "대기 중이거나 실행 중인 것이 없습니다".into(),
        Message::NothingToRetry => "실패하거나 취소된 것이 없습니다".into(),
        Message::NothingToPause => "일시 정지할 것이 없습니다".into(),
        Message::NothingToResume => "일시 정지된 것이 없습니다".into(),
        Message::BadRange { given } => {
            format!("{given:?}: 작업 ID 뒤에 콜론과 태스크 번호를 쓰는 형식이 아닙니다")
        }
        Message::RangeOfTask { given } => format!("{given:?}: 태스크 ID입니다. 번호는 작업 ID에 붙이세요"),
        Message::HintRange => {
            "JOB:3, JOB:3..7, JOB:1,4,9처럼 scenemesh show에 나오는 번호로 태스크를 고르세요".into()
        }
        Message::VariedTwice { path } => format!("{path} 항목을 두 번 바꿉니다. 값을 한꺼번에 적으세요"),
        Message::HintJobs => "scenemesh jobs로 목록을 보세요".into(),
        Message::HintLongerId => "글자를 더 입력하세요. scenemesh jobs에 충분한 길이로 나옵니다".into(),
        Message::HintShow => "scenemesh show ID로 상태를 보세요".into(),

        Message::WorkflowTooLarge { limit } => {
            format!("워크플로가 한도({})보다 큽니다", limit_words(*limit as u64))
        }
        Message::HintExportApi => {
            "ComfyUI에서 열고 Workflow → Export (API)를 고르세요. 옛 버전은 dev mode를 켠 뒤 Save (API Format)를 고르세요"
                .into()
        }
        Message::HintNotEmbedded => "그림을 워크플로에 넣지 말고 --input NAME=FILE로 보내세요".into(),
        Message::BadSetting { path, value, stands } => {
            let stands = match stands.as_str() {
                "number" => "숫자",
                "boolean" => "참/거짓",
                other => other,
            };
            format!("--set {path}={value}: 그 자리에는 {stands} 값이 있는데 {value:?} 값은 JSON이 아닙니다")
        }
        Message::HintQuote => format!("글자를 넣으려면 JSON 따옴표를 쓰세요: --set {}", r#"'NODE.INPUT="글"'"#),
        Message::MissingInput { name, node, class, input } => {
            format!("워크플로에 필요한 파일을 보내지 않았습니다: {name:?} (노드 {node}, {class}.{input})")
        }
        Message::HintGiveInput { name } => format!("--input {name}=FILE을 추가하세요"),
        Message::UnusedInput { name, names } => {
            format!("보낸 파일이 워크플로에 나오지 않습니다: {name:?}. 워크플로에 나오는 파일: {}", or(names, "없음"))
        }
        Message::HintRenameInput => "--input NAME=FILE의 NAME을 워크플로에 적힌 그대로 쓰세요".into(),
        Message::UnknownInputHandle { name } => format!("업로드한 {name:?} 파일을 더는 찾을 수 없습니다"),
        Message::HintUploadAgain => "파일을 다시 보내세요".into(),
        Message::DuplicateInput { name } => format!("{name:?} 파일을 두 번 보냈습니다"),
        Message::UnknownStudio { given, known } => {
            format!("풀에 {given:?} 스튜디오가 없습니다. 있는 스튜디오: {known}")
        }
        Message::BeyondProject { reach, project, limit } => {
            format!("범위 {reach}은(는) 프로젝트 {project:?}의 허용 범위 {limit}을(를) 넘습니다")
        }
        Message::HintBeyondProject => {
            "--reach를 더 좁게 주거나 빼세요. 관리자는 scenemesh project set으로 넓힐 수 있습니다".into()
        }
        Message::ProjectClosed { name } => format!("프로젝트 {name:?}은(는) 닫혀 새 작업을 받지 않습니다"),
        Message::HintProjectOpen => "관리자가 다시 열 수 있습니다: scenemesh project set NAME --open".into(),
        Message::HintReach => "--reach에는 machine, studio, pool 또는 쉼표로 나눈 스튜디오 이름을 씁니다".into(),
        Message::NotInPool { reach } => format!("이 노드는 풀에 없어서 범위 {reach} 작업을 받을 수 없습니다"),
        Message::HintJoinFirst => "먼저 풀에 들어가거나 --reach machine을 쓰세요".into(),
        Message::CountOutOfRange { count, limit } => {
            format!("작업 하나의 태스크는 1개에서 {limit}개까지입니다. {count}개는 안 됩니다")
        }
        Message::UnknownClass { class, nodes, unknown } => {
            format!("범위 안의 어느 노드에도 없는 노드 클래스입니다: {class:?}{}{}", used_by(nodes), besides(unknown))
        }
        Message::HintUnknownClass => {
            "렌더링하는 컴퓨터에 해당 커스텀 노드를 설치하거나 워크플로를 고치세요".into()
        }
        Message::MissingModel { model, unknown } => {
            format!("범위 안의 어느 노드에도 없는 모델입니다: {model:?}{}", besides(unknown))
        }
        Message::HintModelElsewhere { model, nodes, reach } => {
            format!("{model} 모델이 있는 노드: {nodes}. --reach {reach} 옵션을 쓰세요")
        }
        Message::HintModelNowhere => {
            "렌더링하는 컴퓨터에 모델을 넣거나 있는 모델을 고르세요. 이름은 ComfyUI에 나오는 그대로입니다".into()
        }
        Message::NoNodeHasAll { reasons } => {
            format!("이 워크플로를 혼자서 렌더링할 수 있는 노드가 범위 안에 없습니다: {reasons}")
        }
        Message::NobodyInReach { machines } => {
            let reason = |not_there: &NotThere| match not_there {
                NotThere::OutOfReach => "범위 밖",
                NotThere::NoRole => "render 역할 없음",
                NotThere::NoComfyui => "설정된 ComfyUI 없음",
            };
            let reasons: Vec<_> = machines.iter().map(|(name, why)| format!("{name} ({})", reason(why))).collect();
            format!("이 작업을 맡을 수 있는 노드가 없습니다: {}", reasons.join(", "))
        }
        Message::HintNobodyInReach => {
            "--reach를 넓히거나 범위 안의 컴퓨터에 ComfyUI를 두세요: scenemesh.toml의 [[comfyui]] 블록".into()
        }
        Message::HintNoNodeHasAll => "한 노드에 부족한 것을 설치하거나 --reach를 넓히세요".into(),
        Message::MayNotSubmit => "이 노드는 풀에 작업을 낼 수 없습니다: submit 역할이 없습니다".into(),
        Message::InputTooLarge { limit } => format!("입력 파일이 한도({})보다 큽니다", limit_words(*limit)),

        Message::NewStudioNeedsKey => {
            "스튜디오를 새로 만드는 초대인데 관리자 키를 어떻게 보관할지 정하지 않았습니다".into()
        }
        Message::HintPassphrase => "--passphrase-file FILE 또는 --no-passphrase를 쓰세요".into(),
        Message::NoPool => "이 노드는 풀에 없습니다".into(),
        Message::HintInitOrJoin => "먼저 scenemesh init 또는 scenemesh join CODE를 실행하세요".into(),
        Message::NoSuchPeer { given } => format!("풀에 {given:?} 노드가 없습니다"),
        Message::HintPeers => "scenemesh peers로 목록을 보세요".into(),
        Message::SoloComfyuiElsewhere { url } => {
            format!("{url} ComfyUI는 이 컴퓨터의 루프백에 없으며, 1인용(solo) 노드는 다른 소켓을 열지 않습니다")
        }
        Message::HintSoloComfyui => {
            "scenemesh.toml에 127.0.0.1의 ComfyUI를 적고 데몬을 다시 시작하거나, --solo 없이 풀을 만드세요".into()
        }

        Message::DataDirFine { path } => format!("{path}에 쓸 수 있습니다"),
        Message::DataDirNotWritable { path, why } => {
            format!("{path}에 쓸 수 없습니다: {}", phrase(Lang::Ko, why))
        },
        Message::HintDataDir => "폴더의 소유자와 권한, 디스크가 읽기 전용이 아닌지 확인하세요".into(),
        Message::DiskFine { free, used } => {
            format!("여유 {}, 입력과 결과가 쓰는 공간 {}", gigabytes(*free), gigabytes(*used))
        }
        Message::DiskLow { free } => format!("여유가 {}뿐입니다: 새 입력과 결과를 받지 못할 수 있습니다", gigabytes(*free)),
        Message::DiskUnknown => "이 시스템에서는 남은 공간을 알 수 없습니다".into(),
        Message::HintDisk => "데이터 폴더가 있는 디스크의 공간을 비우세요".into(),
        Message::ComfyuiReady { url, version, classes, models } => {
            format!("{url} 준비됨: ComfyUI {version}, 노드 클래스 {classes}개, 모델 {models}개")
        }
        Message::ComfyuiStarting { url } => format!("{url}에 묻는 중입니다"),
        Message::ComfyuiNotReady { url, why } => format!("{url} 준비 안 됨: {why}"),
        Message::HintComfyuiStart { url } => {
            format!("ComfyUI를 시작하거나 scenemesh.toml에 적힌 주소({url})를 고치세요")
        }
        Message::ComfyuiParked { url, nodes, last, trouble, minutes } => {
            let trouble = trouble.as_ref().map(|trouble| format!("; 마지막 시도: {trouble}")).unwrap_or_default();
            format!(
                "{url}에서 다른 사람의 작업을 받지 않음: 노드 {nodes}개의 태스크가 거기서 잇달아 실패함, 마지막 실패: {last}; \
                 자체 시험 렌더가 제대로 나오거나 {minutes}분이 지나면 다시 받음{trouble}"
            )
        }
        Message::HintParked => "그 ComfyUI의 로그를 살펴보세요. scenemeshd를 다시 시작하면 바로 다시 받습니다".into(),
        Message::ComfyuiUnused { url, version } => {
            format!("ComfyUI({version})가 {url} 주소에서 응답하지만 scenemesh.toml에 없습니다")
        }
        Message::HintComfyuiConfigure { url } => {
            format!("렌더링에 쓰려면 scenemesh.toml에 [[comfyui]] url = \"{url}\"을 넣고 데몬을 다시 시작하세요")
        }
        Message::ComfyuiNone { tried } => {
            format!("설정에 없고 {tried}에서도 응답이 없습니다: 제출만 하고 렌더링은 하지 않습니다")
        }
        Message::HintComfyuiNone => {
            "GPU가 없는 자리라면 괜찮습니다. 아니면 ComfyUI를 시작하고 doctor를 다시 실행하세요".into()
        }
        Message::HygieneFull { url } => format!("태스크가 {url}에 남기는 것을 모두 지울 수 있습니다"),
        Message::HygienePartial { url } => {
            format!("{url}의 폴더에 접근할 수 없습니다: 태스크의 파일 일부가 남을 수 있습니다")
        }
        Message::HintHygiene => {
            "[[comfyui]] 블록에 폴더(input_dir, output_dir, temp_dir)를 적거나 이 컴퓨터에서 실행하세요".into()
        }
        Message::GpusSeen { gpus } => format!("드라이버에 보이는 GPU: {gpus}"),
        Message::GpusFromComfyui { gpus } => format!("NVIDIA 드라이버가 응답하지 않습니다. ComfyUI에 보이는 장치: {gpus}"),
        Message::GpusNone => "보이는 GPU가 없습니다".into(),
        Message::HintGpus => "제출만 하는 노드라면 괜찮습니다. 아니면 드라이버를 확인하세요 (nvidia-smi)".into(),
        Message::PoolAlone => "이 노드는 풀에 없습니다".into(),
        Message::PoolJoining { words } => format!("이 노드는 풀에 들어가기를 기다립니다: {words}"),
        Message::PoolOutside { why } => format!("풀에서 이 노드를 구성원으로 보지 않습니다: {why}"),
        Message::PoolMember { pool, studio, members } => {
            format!("{pool} 풀의 {studio} 스튜디오 소속, 전체 구성원 {members}")
        }
        Message::HintAskAdmin => "스튜디오 관리자에게 새 초대를 받으세요".into(),
        Message::HintWait => "저절로 이어집니다. 그만두려면 scenemesh leave".into(),
        Message::Listening { addresses } => format!("피어가 접속할 수 있는 주소: {addresses}"),
        Message::NotListening => "피어를 위해 열린 포트가 없습니다".into(),
        Message::SoloPorts => "1인용: 루프백 말고는 소켓을 열지 않습니다".into(),
        Message::OneAdmin { studio, paper: true } => {
            format!("{studio} 스튜디오의 관리자 키는 복구 코드 말고 하나뿐입니다: 그 컴퓨터를 잃으면 종이만 남습니다")
        }
        Message::OneAdmin { studio, paper: false } => {
            format!("{studio} 스튜디오의 관리자 키는 하나뿐입니다: 잃으면 아무도 스튜디오를 대신해 서명할 수 없습니다")
        }
        Message::HintSecondAdmin => {
            "둘째 키를 만드세요: 다른 컴퓨터에서 scenemesh admin new(또는 --paper), 첫 키가 있는 곳에서 scenemesh admin add KEY"
                .into()
        }
        Message::HintPorts => "이미 쓰이는 포트가 있는지 로그를 보세요. --listen과 --porch로 바꿀 수 있습니다".into(),
        Message::PeersNone => "풀에 다른 노드가 없습니다".into(),
        Message::PeersUp { up, total } => format!("{total}개 중 {up}개 연결됨"),
        Message::PeersAllDown { total } => format!("{total}개 중 하나도 연결되지 않았습니다"),
        Message::HintPeersDown => {
            "상대 데몬이 실행 중이고 7872, 7873 포트가 열려 있나요? scenemesh doctor --peer NODE로 더 살펴보세요".into()
        }
        Message::PeerUp { name, address, rtt_us } => {
            format!("{name} 연결됨: {address}, 왕복 {} ms", milliseconds(*rtt_us))
        },
        Message::PeerDown { name, why } => format!("{name} 연결 끊김: {why}"),
        Message::PeerRefused { name, words } => format!("{name}에 닿았지만 거부됨: {words}"),
        Message::HintPeer => "상대 데몬이 실행 중이고 7872 포트가 이 컴퓨터에 열려 있나요?".into(),
        Message::ClockFine { peers } => format!("피어 {peers}개와 맞습니다"),
        Message::ClockAlone => "비교할 상대가 없습니다".into(),
        Message::ClockOff { name, seconds } => {
            format!("{name}의 시계가 이 컴퓨터보다 {}초 {}", seconds.abs(), ahead(*seconds))
        }
        Message::ClockMine { seconds } => {
            format!("이 컴퓨터의 시계가 다른 피어들보다 {}초 {}", seconds.abs(), ahead(-*seconds))
        }
        Message::JournalFine => "기록(journal)과 색인이 온전합니다".into(),
        Message::JournalTorn { bytes } => {
            format!("시작할 때 기록 끝의 끝나지 않은 쓰기 {bytes}바이트를 잘라 냈습니다. 접수된 것은 잃지 않았습니다")
        }
        Message::JournalMended { kept } => {
            format!("기록이 손상되었지만 고쳤습니다. 잃은 항목은 없고 손상된 파일은 {kept}에 있습니다")
        }
        Message::HintLookAtDisk => "파일을 한 번 망가뜨린 디스크는 또 그럽니다. 디스크를 점검하세요 (smartctl -a)".into(),
        Message::JournalLost { bytes, kinds, kept } => {
            format!("기록 {bytes}바이트를 더는 읽을 수 없습니다{}. 손상된 파일은 {kept}에 있습니다", about(kinds))
        }
        Message::JournalBeginsLate { bytes } => format!("기록의 처음 {bytes}바이트가 없습니다"),
        Message::HintLost => {
            "scenemesh jobs와 scenemesh pool이 예상과 같은지 보고, 빠진 작업은 다시 제출하고, 디스크를 점검하세요".into()
        }
        Message::JournalEndsEarly { bytes } => format!(
            "기록이 이 노드가 접수한 것보다 {bytes}바이트 앞에서 끝납니다: 끝부분을 잃었거나 예전 사본을 되돌려 놓았습니다"
        ),
        Message::JournalGone => "색인은 알고 있는 기록이 사라져서 새로 시작했습니다".into(),
        Message::HintSetBack => {
            "백업을 되돌렸다면 그 뒤에 제출한 작업은 없고 끝나지 않았던 작업은 다시 실행됩니다. 빠진 작업을 다시 제출하세요".into()
        }
        Message::JournalImported { records } => format!("가져온 기록의 항목 {records}개를 제자리에 두었습니다"),
        Message::ImportLeft { path } => {
            format!("가져온 기록이 {path}에서 기다리지만 그 사이 이 노드에 기록이 생겼습니다")
        }
        Message::HintRemoveImport { path } => format!("{path}를 지우거나, 빈 데이터 폴더에서 가져오세요"),
        Message::NoRoomForJournal => "디스크가 가득 차서 새로 기록할 수 없습니다".into(),
        Message::JournalStuck { why } => format!("더는 기록할 수 없습니다: {why}"),
        Message::HintCheckDiskAndRestart => "디스크를 점검한 뒤 scenemeshd를 다시 시작하세요".into(),
        Message::IndexRebuilt { kept } => {
            format!("색인이 손상되어 기록에서 다시 만들었습니다. 옛 색인은 {kept}에 있습니다")
        }
        Message::IndexBroken { why } => format!("색인을 읽을 수 없습니다: {why}"),
        Message::HintRebuild => "scenemesh ledger rebuild를 실행하세요".into(),
        Message::JournalNotEmpty => "이 데몬에 이미 기록이 있습니다: 기록은 빈 데이터 폴더로만 가져올 수 있습니다".into(),
        Message::HintEmptyDataDir => {
            "데몬을 멈추고, 옛 keys/ 폴더만 있는 새 --data-dir로 scenemeshd를 시작한 뒤 거기서 가져오세요".into()
        }
        Message::ImportWaits => "다른 가져오기가 진행 중이거나 다시 시작하기를 기다립니다".into(),
        Message::HintRestartToImport => "scenemeshd를 다시 시작하면 적용됩니다".into(),
        Message::NotAnExport => "내보낸 기록 파일이 아닙니다".into(),
        Message::DamagedExport { why } => format!("내보낸 기록이 손상되었거나 잘렸습니다: {why}"),
        Message::HintExport => "scenemesh journal export로 만든 파일을 온전히 복사해서 쓰세요".into(),
        Message::NewerExport { version } => format!("이 버전이 읽지 못하는 형식({version})입니다"),
        Message::HintNewerRelease => "파일을 만든 버전이나 더 새로운 버전을 설치하세요".into(),
        Message::ForeignExport { node, me } => format!("노드 {node}의 기록인데 이 노드는 {me}입니다"),
        Message::HintCopyKeys => "그 노드의 keys/ 폴더를 먼저 이 데이터 폴더에 복사하고 scenemeshd를 다시 시작하세요".into(),
        Message::HintClock => {
            "NTP로 시계를 맞추세요 (timedatectl set-ntp true): 5분 넘게 다르면 태스크가 거부됩니다".into()
        }
    }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn used_by(nodes: &str) -> String {
    if nodes.is_empty() { String::new() } else { format!(" (노드 {nodes})") }
}

const fn ahead(seconds: i64) -> &'static str {
    if seconds >= 0 { "빠릅니다" } else { "느립니다" }
}

fn besides(unknown: &str) -> String {
    if unknown.is_empty() { String::new() } else { format!(" (아직 알 수 없는 노드: {unknown})") }
}

fn about(kinds: &[RecordKind]) -> String {
    let word = |kind: &RecordKind| match kind {
        RecordKind::Jobs => "여기서 제출한 작업의 한 단계".to_owned(),
        RecordKind::Rendered => "여기서 렌더링한 태스크의 한 단계".to_owned(),
        RecordKind::Membership => "풀의 변경이나 초대".to_owned(),
        RecordKind::Other(kind) => format!("종류 {kind:#06x}의 항목"),
    };
    kinds.iter().map(|kind| format!(", {}", word(kind))).collect()
}
