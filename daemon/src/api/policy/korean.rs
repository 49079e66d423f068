//! Korean for what policy says. Its English stands at the reasons themselves.

use crate::executor::policy::{BadChoices, BadFile, ChangeError, Family, Forbidden, Offence, WhyDenied};

pub(super) fn allowed(by_hand: bool) -> String {
    if by_hand {
        "실행할 수 있습니다: 이 컴퓨터의 주인이 허용했습니다".into()
    } else {
        "실행할 수 있습니다".into()
    }
}

pub(super) fn denied(why: WhyDenied) -> String {
    format!("다른 컴퓨터의 태스크로는 실행하지 않습니다: {}", self::why(why))
}

pub(super) fn why(why: WhyDenied) -> String {
    match why {
        WhyDenied::Unlisted => "실행할 수 있는 클래스의 목록에 없습니다",
        WhyDenied::ByHand => "컴퓨터의 주인이 금지했습니다",
        WhyDenied::Family(family) => match family {
            Family::Paths => "경로나 주소를 받습니다",
            Family::Code => "코드를 실행하거나 불러옵니다",
            Family::Partner => "유료 서비스를 호출합니다",
            Family::Install => "없는 것을 설치합니다",
            Family::Others => "태스크의 것이 아닌 파일에 닿습니다",
            Family::Network => "다른 컴퓨터와 통신합니다",
            Family::Models => "모델을 꺼내 가거나 만듭니다",
            Family::Hang => "중단시킬 방법이 없습니다",
        },
    }
    .into()
}

pub(super) fn finding(what: &Forbidden) -> String {
    match what {
        Forbidden::Class(reason) => why(*reason),
        Forbidden::Literal { input, offence } => format!("입력 {input}: {}", self::offence(offence)),
        Forbidden::Token { key } => format!("{key} 값은 comfy.org 자격 증명입니다"),
    }
}

fn offence(offence: &Offence) -> String {
    match offence {
        Offence::Control => "제어 문자가 있습니다",
        Offence::Absolute => "절대 경로입니다",
        Offence::Drive => "드라이브 이름이 있습니다",
        Offence::Climbs => "폴더 밖으로 올라갑니다 (..)",
        Offence::Home => "홈 폴더를 가리킵니다 (~)",
        Offence::Variable => "시스템 변수가 있습니다 ($)",
        Offence::Address => "이름이 아니라 주소입니다",
        Offence::Annotation => "다른 태스크의 파일을 가리킵니다 ([output] 또는 [temp])",
        Offence::Device => "장치 이름입니다",
        Offence::Stream => "파일 이름에 없는 콜론이 있습니다",
        Offence::Linked => "링크로는 검사할 수 없습니다. 이름을 직접 쓰세요",
        Offence::NotLinked => "값이 아니라 다른 노드에 연결해야 합니다",
        Offence::NotAWord => "글자, 숫자와 . _ - + / 만 쓸 수 있습니다",
        Offence::NotBase64 => "base64가 아닙니다",
        Offence::TooDeep => "너무 깊이 겹쳐 있어 검사할 수 없습니다",
        Offence::Class(class) => return format!("허용되지 않은 노드 클래스 {class}를 실행합니다"),
    }
    .into()
}

fn choices(error: &BadChoices) -> String {
    match error {
        BadChoices::Toml(why) => why.clone(),
        BadChoices::Both { line, class } => {
            format!("{}{class:?} 클래스가 allow와 deny 양쪽에 있습니다; 한쪽에만 두세요", at(*line))
        }
        BadChoices::Partner { line, class } => {
            format!(
                "{}{class} 클래스는 누군가의 돈을 쓰는 파트너 노드라서 허용할 수 없습니다; 빼세요",
                at(*line)
            )
        }
        BadChoices::Name { line, class } => {
            format!("{}{class:?} 값은 노드 클래스 이름이 아닙니다; ComfyUI에 나오는 그대로 쓰세요", at(*line))
        }
        BadChoices::TooMany => "클래스가 너무 많습니다; 몇 개를 빼세요".into(),
    }
}

fn at(line: usize) -> String {
    if line == 0 { String::new() } else { format!("{line}번째 줄: ") }
}

pub(super) fn change(error: &ChangeError) -> String {
    match error {
        ChangeError::Choices(error) => choices(error),
        ChangeError::File(BadFile::Unreadable { path, source }) => {
            format!("{} 파일을 읽을 수 없습니다: {source}; 파일 소유자를 확인하세요", path.display())
        }
        ChangeError::File(BadFile::Malformed { path, why }) => {
            format!("{}: {}", path.display(), choices(why))
        }
        ChangeError::Write { path, source } => {
            format!("{} 파일을 쓸 수 없습니다: {source}; 디스크와 폴더 소유자를 확인하세요", path.display())
        }
        ChangeError::Stopping => "노드가 멈추는 중입니다".into(),
    }
}
