//! `user`: tokens of this machine's users for the local API.

use std::path::PathBuf;

use scenemesh_protocol::api::{ApiFile, Role, UserRemoveRequest, UserRequest, UserView};

use super::Context;
use crate::error::{CliError, os_words};
use crate::human;
use crate::messages::{Message, Word};
use crate::platform::{self, Handed};
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Debug, clap::Subcommand)]
enum UserVerb {
    /// Give a user of this machine a token of their own
    Add(AddArgs),
    /// List who has a token
    Ls,
    /// Change what a user may do
    Set(SetArgs),
    /// Take a user's token away, at once
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Name of the user on this machine
    #[arg(value_name = "NAME")]
    name: String,
    /// What the user may do: view, submit, operate, admin
    #[arg(long, value_name = "ROLE", default_value = "submit", value_parser = role)]
    role: Role,
    /// Write the token to this file instead of scenemesh-NAME.json
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Name of the user on this machine
    #[arg(value_name = "NAME")]
    name: String,
    /// What the user may do: view, submit, operate, admin
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    /// Name of the user on this machine
    #[arg(value_name = "NAME")]
    name: String,
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(str::to_owned)
}

pub(crate) async fn run(args: UserArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let client = context.connection.open()?;
    match args.verb {
        UserVerb::Add(args) => add(args, context).await,
        UserVerb::Ls => {
            let reply = client.users().await?;
            if reply.users.is_empty() {
                context.ui.talk(&Message::NoUsers);
            } else {
                context.ui.table(&table(&reply.users, context.ui));
            }
            Outcome::of_reply(&reply)
        }
        UserVerb::Set(args) => {
            let view = client.set_user(&UserRequest { name: args.name, role: args.role }).await?;
            context.ui.table(&table(std::slice::from_ref(&view), context.ui));
            Outcome::of_reply(&view)
        }
        UserVerb::Rm(args) => {
            let view = client.remove_user(&UserRemoveRequest { name: args.name }).await?;
            context.ui.talk(&Message::UserRemoved { name: view.name.clone() });
            Outcome::of_reply(&view)
        }
    }
}

fn table(users: &[UserView], ui: &Ui) -> Table {
    let mut table = Table::new(&[Word::Name, Word::Role, Word::Age].map(|word| ui.word(word)));
    for user in users {
        let age = human::age_ms(human::now_ms().saturating_sub(user.since_ms));
        table.row([user.name.as_str(), user.role.word(), age.as_str()].map(|text| (text, None)));
    }
    table
}

/// The file is made first: a token that cannot be handed over is never made.
async fn add(args: AddArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let plain: String = args.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("scenemesh-{plain}.json")));
    let shown = path.display().to_string();
    let failed = |error: &std::io::Error| {
        let message = Message::CannotWrite { path: shown.clone(), why: os_words(error) };
        CliError::file(message, Message::HintCheckPath)
    };
    let mut file = platform::new_private_file(&path).map_err(|error| failed(&error))?;
    let reply = match client.add_user(&UserRequest { name: args.name, role: args.role }).await {
        Ok(reply) => reply,
        Err(error) => {
            drop(std::fs::remove_file(&path));
            return Err(error);
        }
    };
    let tells = ApiFile { url: reply.url.clone(), token: reply.token.clone(), gateway: None };
    let text = serde_json::to_string(&tells).map_err(|error| CliError::internal(error.to_string()))?;
    let written = std::io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // A token that nobody got is taken back.
        drop(client.remove_user(&UserRemoveRequest { name: reply.name.clone() }).await);
        drop(std::fs::remove_file(&path));
        return Err(failed(&error));
    }
    let (name, path) = (reply.name.clone(), shown.clone());
    match platform::hand_over(&file, &reply.name) {
        Handed::Over => ui.talk(&Message::TokenHandedOver { name, path }),
        Handed::Kept => ui.talk(&Message::TokenToHandOver { name, path }),
        Handed::NoSuchUser => ui.talk(&Message::NoSuchOsUser { name, path }),
    }
    Ok(Outcome::of(serde_json::json!({ "name": reply.name, "role": reply.role.word(), "file": shown })))
}

/// Where a user's own token lies: named, else in the user's configuration directory.
pub(crate) fn token_file(
    named: Option<PathBuf>,
    environment: &crate::environment::Environment,
) -> Option<PathBuf> {
    let base = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute())
        .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".config")));
    let usual = base.map(|base| base.join("scenemesh/api.json")).filter(|path| path.exists());
    named.or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn a_token_file_is_named_or_lies_in_its_usual_place() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().to_str().unwrap();
        let environment = Environment::of(&[("XDG_CONFIG_HOME", config)]);
        assert_eq!(token_file(None, &environment), None);
        std::fs::create_dir(dir.path().join("scenemesh")).unwrap();
        let usual = dir.path().join("scenemesh/api.json");
        std::fs::write(&usual, "{}").unwrap();
        assert_eq!(token_file(None, &environment), Some(usual));
        assert_eq!(token_file(Some("x".into()), &environment), Some("x".into()));
        assert_eq!(role("root"), Err("view, submit, operate, admin".to_owned()));
    }
}
