//! `pool`: who belongs, and which changes wait for signatures.

use scenemesh_protocol::api::{ApproveRequest, ErrorCode, PoolReply};

use super::Context;
use crate::client::ApiClient;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::typed;
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct PoolArgs {
    #[command(subcommand)]
    verb: Option<PoolVerb>,
}

#[derive(Debug, clap::Subcommand)]
enum PoolVerb {
    /// Show studios, members, and changes that wait for signatures
    Show,
    /// Sign a change with your studio's admin key
    Approve(ApproveArgs),
}

#[derive(Debug, clap::Args)]
struct ApproveArgs {
    /// The change, as `pool show` names it; not needed when there is only one
    #[arg(value_name = "ID", value_parser = typed::hash)]
    proposal: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) async fn run(args: PoolArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    match args.verb {
        None | Some(PoolVerb::Show) => show(&client, context.ui).await,
        Some(PoolVerb::Approve(args)) => approve(&client, args, context.ui).await,
    }
}

async fn show(client: &ApiClient, ui: &Ui) -> Result<Outcome, CliError> {
    let pool = client.pool().await?;
    let mut head = Table::fields();
    head.field(ui.word(Word::Pool), format!("{}  {}", pool.name, pool.pool));
    head.field(ui.word(Word::Epoch), pool.epoch.to_string());
    ui.table(&head);
    ui.result("");
    ui.table(&studios(&pool, ui));
    ui.result("");
    ui.table(&members(&pool, ui));
    if !pool.proposals.is_empty() {
        ui.result("");
        let words = [Word::Change, Word::What, Word::SignedBy, Word::Missing].map(|word| ui.word(word));
        let mut table = Table::new(&words);
        for proposal in &pool.proposals {
            let missing = proposal.signatures_missing.to_string();
            let signed = proposal.signed_by.join(", ");
            table.row([
                (proposal.short.as_str(), None),
                (proposal.change.as_str(), None),
                (signed.as_str(), None),
                (missing.as_str(), None),
            ]);
        }
        ui.table(&table);
        if pool.proposals.iter().any(|proposal| !proposal.mine) {
            ui.talk(&Message::NextApprove);
        }
    }
    for warning in &pool.warnings {
        ui.note(warning);
    }
    Outcome::of_reply(&pool)
}

fn studios(pool: &PoolReply, ui: &Ui) -> Table {
    let mut table =
        Table::new(&[Word::Studio, Word::Id, Word::Weight, Word::Admins].map(|word| ui.word(word)));
    for studio in &pool.studios {
        let mine = if studio.mine { format!("{} *", studio.name) } else { studio.name.clone() };
        let (id, weight, admins) = (studio.id.short(), studio.weight.to_string(), studio.admins.to_string());
        table.row([mine, id, weight, admins].iter().map(|text| (text.as_str(), None)));
    }
    table
}

fn members(pool: &PoolReply, ui: &Ui) -> Table {
    let mut table = Table::new(&[Word::Node, Word::Studio, Word::Roles, Word::Id].map(|word| ui.word(word)));
    for member in &pool.members {
        let name = if member.me { format!("{} *", member.name) } else { member.name.clone() };
        let cells = [name, member.studio.clone(), member.roles.join(","), member.node.to_string()];
        table.row(cells.iter().map(|text| (text.as_str(), None)));
    }
    table
}

async fn approve(client: &ApiClient, args: ApproveArgs, ui: &Ui) -> Result<Outcome, CliError> {
    let mut request = ApproveRequest { proposal: args.proposal, passphrase: args.passphrase.read()? };
    let reply = match client.approve(&request).await {
        Err(error) if error.code == ErrorCode::PassphraseNeeded && request.passphrase.is_none() => {
            request.passphrase = Some(secret::ask_existing(ui)?);
            client.approve(&request).await?
        }
        answer => answer?,
    };
    let change = reply.proposal.change.clone();
    let missing = reply.proposal.signatures_missing;
    let message = if reply.in_force {
        Message::ApprovedInForce { change }
    } else {
        Message::ApprovedWaiting { change, missing }
    };
    ui.result(&ui.text(&message));
    Outcome::of_reply(&reply)
}
