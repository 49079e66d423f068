//! `policy`: which node classes run on this node, for whom, and what would be refused of a workflow.

use std::path::Path;

use scenemesh_protocol::api::{
    ErrorCode, LendView, PolicyChange, PolicyChangeRequest, PolicyCheckReply, PolicyCheckRequest,
    PolicyClassReply, PolicyReply,
};
use scenemesh_protocol::task::Class;

use super::{Context, submit};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::ui::{Outcome, Table, Tone, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    verb: Option<PolicyVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum PolicyVerb {
    /// Show what may run here, a class's verdict, or what would be refused of a workflow
    Show(ShowArgs),
    /// Let a node class run for others, whatever the list says
    Allow(ClassArgs),
    /// Let a node class run for nobody, not even this machine
    Deny(ClassArgs),
    /// Leave a node class to the list again
    Reset(ClassArgs),
    /// Show to whom this node is lent
    Lend,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// A node class, or a workflow in API format: a name with .json at its end; - reads stdin
    #[arg(value_name = "CLASS|WORKFLOW.json")]
    what: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ClassArgs {
    /// Names of node classes, as ComfyUI has them
    #[arg(value_name = "CLASS", required = true)]
    classes: Vec<String>,
}

pub(crate) async fn run(args: PolicyArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    match args.verb {
        None => overview(&context.connection.open()?, ui).await,
        Some(PolicyVerb::Show(ShowArgs { what: None })) => overview(&context.connection.open()?, ui).await,
        Some(PolicyVerb::Show(ShowArgs { what: Some(what) })) if is_file(&what) => {
            let workflow = submit::read_workflow(Path::new(&what))?;
            let request = PolicyCheckRequest { workflow };
            let checked = context.connection.open()?.policy_check(&request).await;
            let checked = checked.map_err(|error| match error.code {
                ErrorCode::NotJson | ErrorCode::UiFormat | ErrorCode::InvalidGraph => {
                    error.about(Path::new(&what))
                }
                _ => error,
            })?;
            workflow_verdict(&checked, ui)
        }
        Some(PolicyVerb::Show(ShowArgs { what: Some(class) })) => {
            class_verdict(&context.connection.open()?.policy_class(&class).await?, ui)
        }
        Some(PolicyVerb::Allow(args)) => change(PolicyChange::Allow, args, context).await,
        Some(PolicyVerb::Deny(args)) => change(PolicyChange::Deny, args, context).await,
        Some(PolicyVerb::Reset(args)) => change(PolicyChange::Reset, args, context).await,
        Some(PolicyVerb::Lend) => {
            let policy = context.connection.open()?.policy().await?;
            ui.table(&lend(&policy.lend, ui));
            Outcome::of_reply(&policy)
        }
    }
}

/// No node class ends like a file.
fn is_file(what: &str) -> bool {
    what == "-" || Path::new(what).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
}

async fn overview(client: &ApiClient, ui: &Ui) -> Result<Outcome, CliError> {
    let policy = client.policy().await?;
    let mut table = list(&policy, ui);
    by_hand(&mut table, &policy, ui);
    ui.table(&table);
    ui.result("");
    ui.table(&lend(&policy.lend, ui));
    Outcome::of_reply(&policy)
}

fn list(policy: &PolicyReply, ui: &Ui) -> Table {
    let mut table = Table::fields();
    let words = ui.text(&Message::PolicyList {
        version: policy.version,
        comfyui: policy.comfyui.clone(),
        allowed: policy.listed_allowed,
        denied: policy.listed_denied,
    });
    table.field(ui.word(Word::List), words);
    table
}

fn by_hand(table: &mut Table, policy: &PolicyReply, ui: &Ui) {
    for (word, classes) in [(Word::AllowedByHand, &policy.allowed), (Word::DeniedByHand, &policy.denied)] {
        let words = if classes.is_empty() { ui.word(Word::None).to_owned() } else { classes.join(", ") };
        table.field(ui.word(word), words);
    }
}

fn lend(lend: &LendView, ui: &Ui) -> Table {
    let mut table = Table::fields();
    let listed = |list: &Option<Vec<String>>, otherwise: Word| {
        list.as_ref().map_or_else(|| ui.word(otherwise).to_owned(), |list| list.join(", "))
    };
    let classes =
        lend.classes.as_ref().map(|classes| classes.iter().map(|class| class_name(*class)).collect());
    table.field(ui.word(Word::LentTo), listed(&lend.to, Word::Everybody));
    table.field(ui.word(Word::Classes), listed(&classes, Word::Everything));
    let vram = lend.max_vram_mib.map_or_else(|| ui.word(Word::Unlimited).to_owned(), human::gib);
    table.field(ui.word(Word::MostVram), vram);
    table.field(ui.word(Word::Hours), listed(&lend.hours, Word::Always));
    if lend.hours.is_some() {
        table.field(ui.word(Word::Now), ui.word(if lend.open { Word::Lent } else { Word::NotNow }));
    }
    table
}

fn class_name(class: Class) -> String {
    match class {
        Class::Urgent => "urgent",
        Class::Normal => "normal",
        Class::Batch => "batch",
    }
    .to_owned()
}

fn class_verdict(verdict: &PolicyClassReply, ui: &Ui) -> Result<Outcome, CliError> {
    let mut table = Table::fields();
    let tone = if verdict.allowed { Tone::Good } else { Tone::Bad };
    table.row([(verdict.class.as_str(), None), (verdict.words.as_str(), Some(tone))]);
    if let Some(from) = &verdict.from {
        table.field(ui.word(Word::From), from);
    }
    if let Some(family) = &verdict.family {
        table.field(ui.word(Word::Family), family);
    }
    ui.table(&table);
    let partner = verdict.family.as_deref() == Some("partner");
    if !verdict.allowed && !partner {
        ui.talk(&Message::NextAllow { class: verdict.class.clone() });
    }
    Outcome::of_reply(verdict)
}

fn workflow_verdict(checked: &PolicyCheckReply, ui: &Ui) -> Result<Outcome, CliError> {
    if checked.findings.is_empty() {
        ui.result(&ui.text(&Message::PolicyFindsNothing));
    } else {
        let words = [Word::Node, Word::Class, Word::Input, Word::Why].map(|word| ui.word(word));
        let mut table = Table::new(&words);
        for finding in &checked.findings {
            let input = finding.input.as_deref().unwrap_or("-");
            table.row([
                (finding.node.as_str(), None),
                (finding.class.as_str(), None),
                (input, None),
                (finding.words.as_str(), Some(Tone::Bad)),
            ]);
        }
        ui.table(&table);
    }
    if !checked.elsewhere.is_empty() {
        ui.result("");
        let words = [Word::Name, Word::Studio, Word::Elsewhere].map(|word| ui.word(word));
        let mut table = Table::new(&words);
        for machine in &checked.elsewhere {
            let tone = if machine.takes { Tone::Good } else { Tone::Bad };
            table.row([
                (machine.name.as_str(), None),
                (machine.studio.as_str(), None),
                (machine.words.as_str(), Some(tone)),
            ]);
        }
        ui.table(&table);
    }
    let refused = checked.refused.then(|| {
        let message = Message::PolicyRefuses { count: checked.findings.len() };
        CliError::new(ErrorCode::Refused, message, Message::HintPolicyRefuses)
    });
    Ok(Outcome::of_reply(checked)?.failing(refused))
}

async fn change(change: PolicyChange, args: ClassArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let request = PolicyChangeRequest { change, classes: args.classes };
    let policy = context.connection.open()?.policy_change(&request).await?;
    let mut table = Table::fields();
    by_hand(&mut table, &policy, ui);
    ui.table(&table);
    Outcome::of_reply(&policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_are_told_from_classes() {
        for file in ["-", "shot.json", "dir/shot.JSON"] {
            assert!(is_file(file), "{file}");
        }
        for class in ["KSampler", "Epsilon Scaling", "BAE-NormalMapPreprocessor", "TextEncodeAceStepAudio1.5"]
        {
            assert!(!is_file(class), "{class}");
        }
    }
}
