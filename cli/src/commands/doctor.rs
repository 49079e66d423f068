//! `doctor`: what is wrong, and what to do.

use scenemesh_protocol::api::{CheckState, CheckView, ErrorCode};
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::messages::{self, Message, Word};
use crate::ui::{Outcome, Table, Tone};

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Look at the way to this node too: a name or an id
    #[arg(long, value_name = "NODE")]
    peer: Option<String>,
}

pub(crate) async fn run(args: DoctorArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let mut checks = vec![CheckView {
        name: "daemon".into(),
        state: CheckState::Ok,
        found: ui.text(&Message::DaemonAnswers { url: client.url().to_owned() }),
        hint: None,
    }];
    checks.extend(client.doctor(args.peer.as_deref()).await?.checks);

    let mut table = Table::fields();
    for check in &checks {
        let (word, tone) = match check.state {
            CheckState::Ok => (Word::Good, Tone::Good),
            CheckState::Warn => (Word::Look, Tone::Warn),
            CheckState::Fail => (Word::Wrong, Tone::Bad),
        };
        let name = messages::check(&check.name, ui.lang);
        table.row([(ui.word(word), Some(tone)), (name, None), (check.found.as_str(), None)]);
        if let Some(hint) = &check.hint {
            let hint = format!("→ {hint}");
            table.row([("", None), ("", None), (hint.as_str(), Some(Tone::Busy))]);
        }
    }
    ui.table(&table);
    let wrong = checks.iter().filter(|check| check.state == CheckState::Fail).count();
    let failure = (wrong > 0).then(|| {
        CliError::new(ErrorCode::CheckFailed, Message::ChecksFailed { count: wrong }, Message::HintChecks)
    });
    Ok(Outcome::of(json!({ "checks": checks })).failing(failure))
}
