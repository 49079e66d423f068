//! The help of every command and argument. English stands at the arguments themselves; Korean stands here, by path.

use clap::{Arg, Command};

use super::Lang;

/// Puts a language's help into a command tree.
pub(crate) fn localise(command: Command, lang: Lang) -> Command {
    translate(command, "", lang).after_help(match lang {
        Lang::En => {
            "Exit codes: 0 done, 1 the work failed, 2 usage, 3 the daemon is not running, 4 not authorised, \
             5 a peer cannot be reached, 6 refused, 7 timeout, 70 our bug, 130 after Ctrl-C"
        }
        Lang::Ko => {
            "종료 코드: 0 완료, 1 작업 실패, 2 사용법 오류, 3 데몬이 실행 중이 아님, 4 권한 없음, \
             5 피어에 연결할 수 없음, 6 거부됨, 7 시간 초과, 70 SceneMesh의 버그, 130 Ctrl-C"
        }
    })
}

fn translate(command: Command, path: &str, lang: Lang) -> Command {
    let command = command.disable_help_flag(true).arg(help_flag(lang));
    let command =
        if path.is_empty() { command.disable_version_flag(true).arg(version_flag(lang)) } else { command };
    let command = match lang {
        Lang::En => command.help_template("{about-with-newline}\nUsage: {usage}\n\n{all-args}{after-help}"),
        Lang::Ko => {
            let command = match korean(path) {
                Some(about) => command.about(about),
                None => command,
            };
            let command = command
                .help_template("{about-with-newline}\n사용법: {usage}\n\n{all-args}{after-help}")
                .subcommand_help_heading("명령");
            command.mut_args(|arg| match korean(&format!("{path} {}", arg.get_id())) {
                Some(help) => headed(arg).help(help),
                None => headed(arg),
            })
        }
    };
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        translate(sub, path.trim_start(), lang)
    })
}

fn headed(arg: Arg) -> Arg {
    let heading = if arg.is_positional() { "인수" } else { "옵션" };
    arg.help_heading(heading)
}

fn help_flag(lang: Lang) -> Arg {
    let help = match lang {
        Lang::En => "Print help",
        Lang::Ko => "도움말 출력",
    };
    Arg::new("help").short('h').long("help").action(clap::ArgAction::Help).help(help)
}

fn version_flag(lang: Lang) -> Arg {
    let help = match lang {
        Lang::En => "Print version",
        Lang::Ko => "버전 출력",
    };
    Arg::new("version").short('V').long("version").action(clap::ArgAction::Version).help(help)
}

fn korean(path: &str) -> Option<&'static str> {
    KOREAN.iter().find(|(known, _)| *known == path.trim_start()).map(|(_, help)| *help)
}

/// Path of commands, then the argument's id where it is an argument's help.
const KOREAN: &[(&str, &str)] = &[
    ("", "함께 쓰는 스튜디오들의 GPU로 ComfyUI 워크플로를 렌더링합니다"),
    ("data_dir", "대화할 데몬의 데이터 폴더"),
    ("token_file", "user add가 써 준 나만의 토큰 파일"),
    ("json", "표준 출력의 마지막 줄에 JSON 객체 하나를 출력"),
    ("lang", "메시지 언어: en 또는 ko. 없으면 LANG을 따름"),
    ("help", "도움말 출력"),
    ("version", "버전 출력"),
    ("init", "이 노드를 첫 노드로 하는 풀을 만듭니다"),
    ("init pool", "새 풀의 이름"),
    ("init studio", "첫 스튜디오, 곧 우리 스튜디오의 이름"),
    ("init name", "이 노드의 이름"),
    ("init no_passphrase", "관리자 키를 암호 없이 디스크에 보관"),
    ("init passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("init solo", "바깥으로 소켓을 열지 않는 1인용 풀"),
    ("invite", "다른 컴퓨터를 위한 일회용 초대를 만듭니다"),
    ("invite role", "새 노드의 역할: submit, render, keep. 없으면 submit과 render"),
    ("invite new_studio", "들어오는 쪽을 이 이름의 새 스튜디오의 첫 관리자로 지정"),
    ("invite expires", "코드의 유효 기간"),
    ("invite unlock", "코드를 만들지 않고, 데몬 재시작으로 잠긴 초대를 풀기"),
    ("invite passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("join", "초대를 써서 풀에 들어갑니다"),
    ("join code", "다른 컴퓨터에서 invite가 출력한 코드"),
    ("join name", "이 노드의 이름. 없으면 컴퓨터 이름"),
    ("join yes", "묻지 않기"),
    ("join no_passphrase", "스튜디오를 새로 만드는 경우 관리자 키를 암호 없이 보관"),
    ("join passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("pool", "풀을 보여 주거나 변경을 승인합니다"),
    ("pool show", "스튜디오, 노드, 서명을 기다리는 변경을 보여 줍니다"),
    ("pool approve", "우리 스튜디오의 관리자 키로 변경에 서명합니다"),
    ("pool approve proposal", "pool show에 나온 변경의 ID. 하나뿐이면 생략 가능"),
    ("pool approve passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("project", "우리 스튜디오의 프로젝트를 만들고, 나열하고, 바꿉니다"),
    ("project add", "프로젝트를 만들고 스튜디오의 관리자 키로 서명합니다"),
    ("project add name", "스튜디오에서 부르는 이름. 다른 스튜디오는 알 수 없음"),
    ("project add max_reach", "태스크가 갈 수 있는 최대 범위: machine, studio, pool 또는 스튜디오 이름들"),
    ("project add nodes", "이 노드들에서만 렌더링"),
    ("project add hygiene", "full: 흔적을 모두 지울 수 있는 노드에서만 렌더링"),
    ("project add retention", "작업이 끝나고 이만큼 지나면 입력과 결과를 지우기"),
    ("project add passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("project ls", "우리 스튜디오의 프로젝트를 나열합니다"),
    ("project show", "프로젝트를 보여 줍니다"),
    ("project show name", "프로젝트의 이름 또는 ID"),
    ("project set", "프로젝트를 바꿉니다. 기다리는 작업은 새 규칙을 따릅니다"),
    ("project set name", "프로젝트의 이름 또는 ID"),
    ("project set max_reach", "태스크가 갈 수 있는 최대 범위: machine, studio, pool 또는 스튜디오 이름들"),
    ("project set nodes", "이 노드들에서만 렌더링"),
    ("project set all_nodes", "범위 안의 모든 노드에서 렌더링"),
    ("project set hygiene", "full: 흔적을 모두 지울 수 있는 노드에서만 렌더링"),
    ("project set retention", "작업이 끝나고 이만큼 지나면 입력과 결과를 지우기. never는 지우지 않음"),
    ("project set open", "새 작업을 다시 받기"),
    ("project set passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("project close", "프로젝트의 새 작업을 받지 않습니다"),
    ("project close name", "프로젝트의 이름 또는 ID"),
    ("project close passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("user", "이 컴퓨터의 사용자에게 각자의 토큰을 줍니다"),
    ("user add", "사용자에게 토큰을 줍니다"),
    ("user add name", "이 컴퓨터의 사용자 이름"),
    ("user add role", "할 수 있는 일: view, submit, operate, admin"),
    ("user add out", "토큰을 scenemesh-NAME.json 대신 이 파일에 쓰기"),
    ("user ls", "토큰을 가진 사용자를 나열합니다"),
    ("user set", "사용자가 할 수 있는 일을 바꿉니다"),
    ("user set name", "이 컴퓨터의 사용자 이름"),
    ("user set role", "할 수 있는 일: view, submit, operate, admin"),
    ("user rm", "사용자의 토큰을 바로 거둡니다"),
    ("user rm name", "이 컴퓨터의 사용자 이름"),
    ("peers", "풀의 다른 노드를 나열합니다"),
    ("policy", "여기서 실행할 노드 클래스와 빌려줄 대상을 보여 주거나 바꿉니다"),
    ("policy show", "실행할 수 있는 것, 클래스의 판정, 워크플로에서 거절될 것을 보여 줍니다"),
    ("policy show what", "노드 클래스, 또는 이름이 .json으로 끝나는 API 형식 워크플로. -는 표준 입력"),
    ("policy allow", "목록과 관계없이 다른 컴퓨터의 태스크에도 노드 클래스를 허용합니다"),
    ("policy allow classes", "ComfyUI에 나오는 노드 클래스 이름"),
    ("policy deny", "이 컴퓨터의 태스크까지 포함해 노드 클래스를 금지합니다"),
    ("policy deny classes", "ComfyUI에 나오는 노드 클래스 이름"),
    ("policy reset", "노드 클래스를 다시 목록에 맡깁니다"),
    ("policy reset classes", "ComfyUI에 나오는 노드 클래스 이름"),
    ("policy lend", "이 노드를 누구에게 빌려주는지 보여 줍니다"),
    ("status", "이 노드의 상태를 보여 줍니다"),
    ("lend", "이 컴퓨터를 빌려주거나 GPU를 되찾습니다"),
    ("lend on", "지금부터 설정이 허락하는 만큼 이 컴퓨터를 빌려줍니다"),
    ("lend on until", "언제까지. 그 뒤에는 off처럼 GPU를 되찾음: 18:30, 2h, \"2026-11-26 18:30\""),
    ("lend off", "GPU를 되찾습니다: 거의 끝난 남의 일은 마치게 두고, 나머지는 중단해 다른 곳으로 보냅니다"),
    ("lend off until", "언제까지. 그 뒤에는 다시 빌려줌: 18:30, 2h, \"2026-11-26 18:30\""),
    ("lend off detach", "메모리가 빌 때까지 기다리지 않기"),
    ("lend now", "GPU를 바로 되찾습니다: 남의 일은 모두 중단해 다른 곳으로 보냅니다"),
    ("lend now until", "언제까지. 그 뒤에는 다시 빌려줌: 18:30, 2h, \"2026-11-26 18:30\""),
    ("lend now detach", "메모리가 빌 때까지 기다리지 않기"),
    ("lend until", "정한 시각까지 이 컴퓨터를 빌려주고, 그 뒤 off처럼 GPU를 되찾습니다"),
    ("lend until time", "시각: 18:30, 2h, \"2026-11-26 18:30\""),
    ("lend status", "빌려주는지, 누가 쓰는지, 되찾기가 어떻게 되었는지 보여 줍니다"),
    ("drain", "누구의 새 일도 받지 않고, 여기서 도는 것이 끝나기를 기다립니다"),
    ("drain then", "여기서 누군가 기다리는 것이 남지 않으면 할 일"),
    ("drain within", "이만큼 지나면 남의 일은 돌려보내고 결과도 더 기다리지 않기"),
    ("drain off", "다시 일을 받기"),
    ("drain detach", "기다리지 않기"),
    ("leave", "풀에서 나갑니다"),
    ("leave yes", "묻지 않기"),
    ("revoke", "노드나 관리자 키를 우리 스튜디오에서 영구히 뺍니다"),
    ("revoke node", "노드의 이름, ID 또는 ID의 끝부분"),
    ("revoke admin", "노드 대신 admin show에 나온 관리자 키를 폐기"),
    ("revoke reason", "이유. 그 노드와 모든 구성원이 읽음"),
    ("revoke void", "그 관리자 키가 서명한 것을 다시 서명하지 않고 무효로 둠"),
    ("revoke passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("block", "72시간 동안 우리 스튜디오의 컴퓨터에서 노드를 막습니다"),
    ("block node", "노드의 이름, ID 또는 ID의 끝부분"),
    ("block reason", "이유. 우리 스튜디오의 컴퓨터만 읽음"),
    ("block lift", "차단 풀기"),
    ("rotate", "이 노드의 키를 새 키로 바꿉니다"),
    ("rotate node_key", "노드 자신의 키를 바꾸기. 없어도 같음"),
    ("rotate countersign", "다른 컴퓨터의 rotate가 출력한 코드로 그 컴퓨터의 새 키에 서명"),
    ("rotate passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("admin", "우리 스튜디오의 관리자 키를 보거나 더하거나 복구하거나 뺍니다"),
    ("admin show", "우리 스튜디오의 관리자 키를 보여 줍니다"),
    ("admin recover", "복구 코드의 관리자 키를 이 컴퓨터에 되살립니다"),
    ("admin recover code_file", "복구 코드를 파일 첫 줄에서 읽기"),
    ("admin recover no_passphrase", "관리자 키를 암호 없이 디스크에 보관"),
    ("admin recover passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("admin add", "다른 컴퓨터나 종이의 키를 우리 스튜디오의 관리자로 더합니다"),
    ("admin add key", "admin new 또는 admin show가 출력한 키"),
    ("admin add passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("admin remove", "우리 스튜디오에서 관리자 키를 뺍니다"),
    ("admin remove key", "admin new 또는 admin show가 출력한 키"),
    ("admin remove passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("admin new", "이 컴퓨터나 종이에 관리자 키를 만듭니다"),
    ("admin new paper", "파일로 두지 않고 복구 코드를 출력"),
    ("admin new no_passphrase", "관리자 키를 암호 없이 디스크에 보관"),
    ("admin new passphrase_file", "관리자 키의 암호를 파일 첫 줄에서 읽기"),
    ("submit", "워크플로를 제출하고 결과를 기다립니다"),
    ("submit workflow", "API 형식의 ComfyUI 워크플로. -는 표준 입력"),
    ("submit set", "워크플로의 값 하나를 바꾸기"),
    ("submit input", "파일을 함께 보내기. NAME은 워크플로에 적힌 이름"),
    ("submit count", "렌더링할 개수. i번 태스크는 모든 seed에 i를 더함"),
    ("submit vary", "값마다 한 번씩 렌더링: 1..5, 0.5..1/0.1, a,b,c, @FILE. 여러 개면 모든 조합"),
    ("submit on_suspect", "이상해 보이는 그림을 다른 곳에서 다시 렌더링: retry, keep"),
    ("submit then", "앞 워크플로의 NODE에서 만든 파일을 NAME으로 받아 이어 가는 워크플로"),
    (
        "submit keep_on",
        "이 컴퓨터가 없을 때 이어 갈 수 있게 스튜디오의 이 노드에도 보관하기. none이면 보관하지 않음",
    ),
    ("submit class", "급한 정도: urgent, normal, batch"),
    (
        "submit reach",
        "보낼 수 있는 범위: machine, studio, pool 또는 스튜디오 이름들. 없으면 studio, 프로젝트에 따라 더 좁게",
    ),
    ("submit project", "이 프로젝트의 규칙을 따르기"),
    ("submit needs", "노드에 필요한 조건: vram=24GB,cc=8.9"),
    ("submit full_hygiene", "흔적을 모두 지울 수 있는 곳에서만 렌더링"),
    ("submit out", "결과를 이 폴더 아래에 저장"),
    ("submit preview", "최신 미리보기 그림을 이 파일에 저장"),
    ("submit detach", "기다리지 않기"),
    ("jobs", "작업을 최신순으로 나열합니다"),
    ("jobs active", "끝나지 않은 작업만"),
    ("jobs limit", "최대 표시 개수"),
    ("show", "작업과 그 태스크를 보여 줍니다"),
    ("show id", "작업이나 태스크의 ID. 줄여 써도 됨"),
    ("why", "작업이나 태스크가 왜 지금 상태인지 말합니다"),
    ("why id", "작업이나 태스크의 ID. 줄여 써도 됨"),
    ("logs", "작업이나 태스크의 경과를 보여 줍니다"),
    ("logs id", "작업이나 태스크의 ID. 줄여 써도 됨"),
    ("logs follow", "작업이 끝날 때까지 계속"),
    ("cancel", "작업이나 태스크를 취소합니다"),
    ("cancel id", "작업이나 태스크의 ID, 또는 태스크 몇 개를 고르는 JOB:3..7"),
    ("retry", "작업의 실패한 태스크를 다시 시도합니다"),
    ("retry id", "작업이나 태스크의 ID, 또는 태스크 몇 개를 고르는 JOB:3..7"),
    ("pause", "작업의 태스크가 더 시작되지 않게 합니다"),
    ("pause id", "작업이나 태스크의 ID, 또는 태스크 몇 개를 고르는 JOB:3..7"),
    ("resume", "일시 정지한 것을 다시 시작합니다"),
    ("resume id", "작업이나 태스크의 ID, 또는 태스크 몇 개를 고르는 JOB:3..7"),
    ("fetch", "작업의 결과를 저장합니다"),
    ("fetch id", "작업이나 태스크의 ID, 또는 태스크 몇 개를 고르는 JOB:3..7"),
    ("fetch out", "이 폴더 아래에 저장"),
    ("doctor", "문제를 찾고 해결 방법을 알려 줍니다"),
    ("doctor peer", "이 노드까지의 경로도 확인: 이름 또는 ID"),
    ("journal", "데몬의 기록을 파일로 내보내거나 가져옵니다"),
    ("journal export", "이 노드가 기록한 모든 것을 파일에 씁니다"),
    ("journal export file", "쓸 파일. 이미 있으면 안 됨"),
    ("journal import", "아직 기록이 없는 데몬으로 내보낸 기록을 가져옵니다"),
    ("journal import file", "export로 만든 파일"),
    ("ledger", "장부를 돌봅니다"),
    ("ledger rebuild", "기록에서 색인을 다시 만듭니다"),
    ("top", "노드와 실행 중인 태스크를 지켜봅니다"),
    ("top once", "한 번만 출력. 표준 출력이 터미널이 아닐 때와 같음"),
    ("completions", "셸 자동 완성 스크립트를 출력합니다"),
    ("completions shell", "대상 셸"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn paths(command: &Command, path: &str, into: &mut BTreeSet<String>) {
        into.insert(path.to_owned());
        for arg in command.get_arguments().filter(|arg| path.is_empty() || !arg.is_global_set()) {
            if arg.get_id() != "help" && arg.get_id() != "version" || path.is_empty() {
                into.insert(format!("{path} {}", arg.get_id()).trim_start().to_owned());
            }
        }
        for sub in command.get_subcommands() {
            paths(sub, format!("{path} {}", sub.get_name()).trim_start(), into);
        }
    }

    #[test]
    fn every_command_and_argument_has_korean_help_and_no_other_has() {
        let mut wanted = BTreeSet::new();
        paths(&crate::args::command(Lang::En), "", &mut wanted);
        let written: BTreeSet<String> = KOREAN.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(written, wanted);
    }
}
