//! `project`: how far a project's tasks may travel, and what is left of them.

use std::time::Duration;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::api::{
    ErrorCode, Passphrase, ProjectRequest, ProjectSetRequest, ProjectView, ReachWords,
};

use super::Context;
use crate::error::CliError;
use crate::human;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::typed;
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct ProjectArgs {
    #[command(subcommand)]
    verb: ProjectVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ProjectVerb {
    /// Make a project, signed by your studio's admin key
    Add(AddArgs),
    /// List the projects of your studio
    Ls,
    /// Show a project
    Show(WhichArgs),
    /// Change a project; what waits follows the new rules
    Set(SetArgs),
    /// Take no new jobs for a project
    Close(CloseArgs),
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What your studio calls it; other studios never learn the name
    #[arg(value_name = "NAME")]
    name: String,
    /// How far its tasks may travel at most: machine, studio, pool, or names of studios
    #[arg(long, value_name = "REACH", default_value = "studio")]
    max_reach: ReachWords,
    /// Only these nodes may render it
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    nodes: Vec<String>,
    /// full: only nodes that can remove every trace render it
    #[arg(long, value_name = "HYGIENE", default_value = "partial", value_parser = hygiene)]
    hygiene: bool,
    /// Remove inputs and results this long after a job has ended
    #[arg(long, value_name = "TIME", value_parser = typed::duration)]
    retention: Option<Duration>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// Name or id of the project
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Name or id of the project
    #[arg(value_name = "NAME")]
    name: String,
    /// How far its tasks may travel at most: machine, studio, pool, or names of studios
    #[arg(long, value_name = "REACH")]
    max_reach: Option<ReachWords>,
    /// Only these nodes may render it
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', conflicts_with = "all_nodes")]
    nodes: Vec<String>,
    /// Every node within reach may render it
    #[arg(long)]
    all_nodes: bool,
    /// full: only nodes that can remove every trace render it
    #[arg(long, value_name = "HYGIENE", value_parser = hygiene)]
    hygiene: Option<bool>,
    /// Remove inputs and results this long after a job has ended; never keeps them
    #[arg(long, value_name = "TIME", value_parser = retention)]
    retention: Option<u32>,
    /// Take new jobs again
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, clap::Args)]
struct CloseArgs {
    /// Name or id of the project
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Whether full.
fn hygiene(text: &str) -> Result<bool, String> {
    match text {
        "full" => Ok(true),
        "partial" => Ok(false),
        _ => Err("full, partial".into()),
    }
}

/// Seconds; zero for `never`.
fn retention(text: &str) -> Result<u32, String> {
    if text == "never" {
        return Ok(0);
    }
    typed::duration(text).map(seconds).map_err(|_| "7d, 12h, never".to_owned())
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

pub(crate) async fn run(args: ProjectArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    match args.verb {
        ProjectVerb::Add(args) => add(args, context).await,
        ProjectVerb::Ls => list(context).await,
        ProjectVerb::Show(args) => show(&args.name, context).await,
        ProjectVerb::Set(args) => {
            let nodes = if args.all_nodes { Some(Vec::new()) } else { Some(args.nodes) };
            let request = ProjectSetRequest {
                project: args.name,
                max_reach: args.max_reach,
                nodes: nodes.filter(|nodes| args.all_nodes || !nodes.is_empty()),
                full_hygiene: args.hygiene,
                retention_s: args.retention,
                closed: args.open.then_some(false),
                passphrase: args.passphrase.read()?,
            };
            set(request, context).await
        }
        ProjectVerb::Close(args) => {
            let request = ProjectSetRequest {
                project: args.name,
                closed: Some(true),
                passphrase: args.passphrase.read()?,
                ..ProjectSetRequest::default()
            };
            set(request, context).await
        }
    }
}

async fn add(args: AddArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    let mut request = ProjectRequest {
        name: args.name,
        max_reach: args.max_reach,
        nodes: args.nodes,
        full_hygiene: args.hygiene,
        retention_s: args.retention.map(seconds),
        passphrase: args.passphrase.read()?,
    };
    let view = match client.add_project(&request).await {
        Err(error) if needs_passphrase(&error, request.passphrase.as_ref()) => {
            request.passphrase = Some(secret::ask_existing(context.ui)?);
            client.add_project(&request).await?
        }
        answer => answer?,
    };
    print(&view, context.ui);
    context.ui.talk(&Message::NextProject { name: view.name.clone() });
    Outcome::of_reply(&view)
}

async fn set(mut request: ProjectSetRequest, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    let view = match client.set_project(&request).await {
        Err(error) if needs_passphrase(&error, request.passphrase.as_ref()) => {
            request.passphrase = Some(secret::ask_existing(context.ui)?);
            client.set_project(&request).await?
        }
        answer => answer?,
    };
    print(&view, context.ui);
    Outcome::of_reply(&view)
}

fn needs_passphrase(error: &CliError, given: Option<&Passphrase>) -> bool {
    error.code == ErrorCode::PassphraseNeeded && given.is_none()
}

async fn list(context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let reply = context.connection.open()?.projects().await?;
    if reply.projects.is_empty() {
        ui.talk(&Message::NoProjects);
    } else {
        let words =
            [Word::Id, Word::Name, Word::Reach, Word::Nodes, Word::Hygiene, Word::Retention, Word::State];
        let mut table = Table::new(&words.map(|word| ui.word(word)));
        for project in &reply.projects {
            let state = if project.closed { ui.word(Word::Closed) } else { ui.word(Word::Open) };
            let cells = [
                project.short.clone(),
                project.name.clone(),
                project.max_reach.to_string(),
                nodes(project),
                hygiene_word(project).to_owned(),
                retention_words(project, ui),
                state.to_owned(),
            ];
            table.row(cells.iter().map(|text| (text.as_str(), None)));
        }
        ui.table(&table);
    }
    Outcome::of_reply(&reply)
}

async fn show(which: &str, context: &Context<'_>) -> Result<Outcome, CliError> {
    let reply = context.connection.open()?.projects().await?;
    let lower = which.to_ascii_lowercase();
    let named = reply.projects.iter().find(|project| project.name == which);
    let by_id = || {
        let mut found = reply
            .projects
            .iter()
            .filter(|project| lower.len() >= 4 && project.project.to_string().starts_with(&lower));
        found.next().filter(|_| found.next().is_none())
    };
    let Some(project) = named.or_else(by_id) else {
        let message = Message::NoSuchProject { name: which.to_owned() };
        return Err(CliError::new(ErrorCode::NotFound, message, Message::HintProjects));
    };
    print(project, context.ui);
    Outcome::of_reply(project)
}

fn print(project: &ProjectView, ui: &Ui) {
    let mut table = Table::fields();
    table.field(ui.word(Word::Name), &project.name);
    table.field(ui.word(Word::Id), project.project.to_string());
    table.field(ui.word(Word::Reach), project.max_reach.to_string());
    table.field(ui.word(Word::Nodes), nodes(project));
    table.field(ui.word(Word::Hygiene), hygiene_word(project));
    table.field(ui.word(Word::Retention), retention_words(project, ui));
    let state = if project.closed { Word::Closed } else { Word::Open };
    table.field(ui.word(Word::State), ui.word(state));
    table.field(ui.word(Word::Version), format!("{}  {}", project.version, human::utc(project.issued_ms)));
    ui.table(&table);
}

fn nodes(project: &ProjectView) -> String {
    let named = |nodes: &Vec<scenemesh_protocol::api::NodeRef>| {
        nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    project.nodes.as_ref().map_or_else(|| "*".to_owned(), named)
}

const fn hygiene_word(project: &ProjectView) -> &'static str {
    match project.hygiene {
        Hygiene::Full => "full",
        Hygiene::Partial => "partial",
    }
}

fn retention_words(project: &ProjectView, ui: &Ui) -> String {
    project.retention_s.map_or_else(
        || ui.word(Word::Never).to_owned(),
        |seconds| human::age_ms(u64::from(seconds).saturating_mul(1000)),
    )
}
