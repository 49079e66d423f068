//! Korean for refusals about keys.

use scenemesh_protocol::keyfile::BadRecoveryCode;
use scenemesh_protocol::roster::BadRotationCode;

use crate::membership::{
    CannotBlock, CannotChangeAdmins, CannotInstall, CannotRevoke, CannotRotate, NoSuchMember, TrustError,
};

const NO_POOL: &str = "이 노드는 풀에 없습니다; 먼저 scenemesh init 또는 scenemesh join을 실행하세요";
const LOCKED: &str = "관리자 키가 잠겨 있습니다; --passphrase-file로 암호를 주세요";
const LONG_REASON: &str = "이유가 256바이트를 넘거나 제어 문자가 있습니다; 더 짧게 쓰세요";

pub(in crate::api) fn trust(error: &TrustError) -> String {
    match error {
        TrustError::Revoke(cannot) => revoke(cannot),
        TrustError::Block(cannot) => block(cannot),
        TrustError::Rotate(cannot) => rotate(cannot),
        TrustError::Admins(cannot) => admins(cannot),
        TrustError::Install(cannot) => install(cannot),
        TrustError::Keys(error) => super::keys(error),
        TrustError::Keep(error) => error.to_string(),
        TrustError::Stopping => "데몬이 종료되는 중입니다".into(),
    }
}

fn no_such(no_such: &NoSuchMember) -> String {
    match no_such {
        NoSuchMember::None { given } => {
            format!("풀에 {given:?} 노드가 없습니다; scenemesh pool로 목록을 보세요")
        }
        NoSuchMember::Ambiguous { given, ids } => {
            format!("{given:?} 값에 맞는 노드가 여럿입니다; ID를 더 길게 쓰세요: {ids}")
        }
    }
}

fn no_key(studio: &str) -> String {
    format!("이 노드에는 {studio} 스튜디오의 관리자 키가 없습니다; 키가 있는 컴퓨터에서 하세요")
}

fn no_such_admin(given: &str, studio: &str) -> String {
    format!("{studio} 스튜디오에 관리자 키 {given:?} 없음; scenemesh admin show로 목록을 보세요")
}

fn only_admin(studio: &str) -> String {
    format!(
        "{studio} 스튜디오의 하나뿐인 관리자 키라서, 없으면 아무도 스튜디오를 대신해 서명할 수 없습니다; 먼저 다른 컴퓨터에서 scenemesh admin new, \
         그다음 scenemesh admin add KEY로 둘째 키를 더하세요"
    )
}

fn revoke(cannot: &CannotRevoke) -> String {
    match cannot {
        CannotRevoke::NoPool => NO_POOL.into(),
        CannotRevoke::NoSuch(error) => no_such(error),
        CannotRevoke::NoSuchAdmin { given, studio } => no_such_admin(given, studio),
        CannotRevoke::OtherStudio { name, studio } => format!(
            "{name} 노드는 {studio} 스튜디오의 것이라 그 관리자만 폐기할 수 있습니다; 우리 컴퓨터에서 막으려면 scenemesh block {name}"
        ),
        CannotRevoke::ThisNode => "이 노드 자신입니다; 풀에서 나가려면 scenemesh leave를 실행하세요".into(),
        CannotRevoke::Already { name, reason } => {
            format!("{name} 항목은 이미 폐기되었습니다({reason}); 폐기는 되돌릴 수 없습니다")
        }
        CannotRevoke::OnlyAdmin { studio } => only_admin(studio),
        CannotRevoke::ItsOwnSigner => {
            "관리자 키는 자신을 폐기하지 못합니다; 다른 키를 쓰세요: scenemesh admin recover로 종이에 적은 키를 이 컴퓨터에 되살릴 수 있습니다"
                .into()
        }
        CannotRevoke::BadReason => LONG_REASON.into(),
        CannotRevoke::Locked => LOCKED.into(),
        CannotRevoke::NoAdminKey { studio } => no_key(studio),
        CannotRevoke::Full => {
            "명부가 가득 차서 폐기를 받지 못합니다; 우선 scenemesh block NODE로 막으세요".into()
        }
    }
}

fn block(cannot: &CannotBlock) -> String {
    match cannot {
        CannotBlock::NoPool => NO_POOL.into(),
        CannotBlock::NotMember => {
            "이 노드는 지금 풀의 구성원이 아니어서 아무도 따르지 않습니다; scenemesh pool을 보세요".into()
        }
        CannotBlock::NoSuch(error) => no_such(error),
        CannotBlock::ThisNode => {
            "노드는 자신을 막지 못합니다; 풀에서 나가려면 scenemesh leave를 실행하세요".into()
        }
        CannotBlock::NotBlocked(name) => {
            format!("{name} 노드는 차단되어 있지 않습니다; scenemesh peers로 차단된 노드를 보세요")
        }
        CannotBlock::BadReason => LONG_REASON.into(),
        CannotBlock::Refused(why) => {
            format!("스튜디오가 차단을 받지 않습니다({why}); 먼저 한 차단이 끝나기를 기다리세요")
        }
    }
}

fn rotate(cannot: &CannotRotate) -> String {
    match cannot {
        CannotRotate::NoPool => {
            "이 노드는 풀에 없어 키를 바꿀 일이 없습니다; 새 키가 필요하면 빈 데이터 폴더로 시작하세요".into()
        }
        CannotRotate::NotMember => {
            "이 노드는 지금 풀의 구성원이 아니어서 아무도 새 키를 따르지 않습니다; scenemesh status를 보세요".into()
        }
        CannotRotate::Busy { out, here } => format!(
            "이 노드의 키에 묶인 태스크가 있습니다(밖에 {out}개, 여기 {here}개); scenemesh status에 실행 중인 태스크가 없을 때까지 기다리거나 취소하세요"
        ),
        CannotRotate::Code(bad) => match bad {
            BadRotationCode::NotARotationCode => {
                "교체 코드가 아닙니다: 교체 코드는 smeshrot1로 시작합니다; 다른 컴퓨터에서 한 줄 전체를 복사하세요".into()
            }
            BadRotationCode::Damaged => {
                "교체 코드에 틀리거나 빠진 글자가 있습니다; 한 줄 전체를 다시 복사하세요".into()
            }
            BadRotationCode::Version(theirs) => {
                format!("이 버전에서 읽을 수 없는 교체 코드입니다 (버전 {theirs}); 오래된 쪽을 업그레이드하세요")
            }
            BadRotationCode::Forged(_) => {
                "교체 코드에 두 키의 서명이 없습니다; 그 컴퓨터에서 scenemesh rotate를 다시 실행하세요".into()
            }
        },
        CannotRotate::OtherPool => "다른 풀에 있는 노드의 코드입니다; 그 풀에서 서명하세요".into(),
        CannotRotate::OtherStudio => {
            "다른 스튜디오에 속한 노드의 코드입니다; 그 스튜디오의 관리자가 서명해야 합니다".into()
        }
        CannotRotate::NotMemberThere { studio } => {
            format!("코드의 키는 지금 {studio} 스튜디오의 구성원이 아닙니다; 이미 교체되었거나 폐기되었을 수 있습니다")
        }
        CannotRotate::BadKey => {
            "코드의 새 키가 약하거나 이미 알려져 있습니다; 그 컴퓨터에서 scenemesh rotate를 다시 실행하세요".into()
        }
        CannotRotate::Locked => LOCKED.into(),
        CannotRotate::NoAdminKey { studio } => no_key(studio),
        CannotRotate::Full => {
            "명부가 가득 차서 새 키를 받지 못합니다; 새 데이터 폴더로 초대를 받으세요".into()
        }
    }
}

fn admins(cannot: &CannotChangeAdmins) -> String {
    match cannot {
        CannotChangeAdmins::NoPool => NO_POOL.into(),
        CannotChangeAdmins::WeakKey => {
            "쓸 수 없는 키입니다; scenemesh admin new가 출력한 한 줄 전체를 복사하세요".into()
        }
        CannotChangeAdmins::Known { studio } => {
            format!("{studio} 스튜디오에 이미 있는 관리자 키입니다; scenemesh admin show로 목록을 보세요")
        }
        CannotChangeAdmins::Revoked => {
            "폐기된 키는 다시 쓸 수 없습니다; scenemesh admin new로 새 키를 만드세요".into()
        }
        CannotChangeAdmins::Taken { studio } => {
            format!("{studio} 스튜디오의 관리자 키입니다; 키 하나는 한 스튜디오에만 쓸 수 있습니다")
        }
        CannotChangeAdmins::TooMany => {
            "스튜디오의 관리자 키는 8개까지입니다; 먼저 scenemesh admin remove KEY로 하나를 빼세요".into()
        }
        CannotChangeAdmins::NoSuchAdmin { given, studio } => no_such_admin(given, studio),
        CannotChangeAdmins::OnlyAdmin { studio } => only_admin(studio),
        CannotChangeAdmins::ItsOwnSigner => {
            "관리자 키는 자신을 뺄 수 없습니다; 다른 키로, 그 키가 있는 컴퓨터에서 하세요".into()
        }
        CannotChangeAdmins::Locked => LOCKED.into(),
        CannotChangeAdmins::NoAdminKey { studio } => no_key(studio),
        CannotChangeAdmins::Settings(why) => {
            format!("설정이 이 변경을 받지 않습니다({why}); scenemesh pool을 보세요")
        }
    }
}

fn install(cannot: &CannotInstall) -> String {
    match cannot {
        CannotInstall::Code(BadRecoveryCode::NotARecoveryCode) => {
            "복구 코드가 아닙니다: 복구 코드는 smeshkey1로 시작합니다".into()
        }
        CannotInstall::Code(BadRecoveryCode::Damaged) => {
            "복구 코드에 틀리거나 빠진 글자가 있습니다: 종이에 적은 것과 맞춰 보세요".into()
        }
        CannotInstall::Code(BadRecoveryCode::Version(theirs)) => {
            format!("이 버전에서 읽을 수 없는 복구 코드입니다 (버전 {theirs})")
        }
        CannotInstall::NoPool => {
            "이 노드는 풀에 없어 스튜디오의 관리자가 누구인지 모릅니다; 먼저 풀에 들어가세요".into()
        }
        CannotInstall::NotAnAdmin { studio } => format!(
            "코드의 키는 {studio} 스튜디오의 관리자가 아니거나 폐기되었습니다; 종이에 적은 코드와 scenemesh admin show를 맞춰 보세요"
        ),
        CannotInstall::Exists { key, path } => format!(
            "이 컴퓨터에는 이미 관리자 키 {key} 있음 ({}); scenemesh admin add로 스튜디오에 더하거나 파일을 옮기세요",
            path.display()
        ),
    }
}
