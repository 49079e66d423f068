//! `init`: founds a pool.

use scenemesh_protocol::api::{ComfyuiView, InitRequest};

use super::Context;
use crate::error::CliError;
use crate::messages::{Message, Word};
use crate::secret::{self, PassphraseArgs};
use crate::ui::{Outcome, Table, Ui};

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Name of the new pool
    #[arg(long, value_name = "NAME")]
    pool: String,
    /// Name of its first studio, yours
    #[arg(long, value_name = "NAME")]
    studio: String,
    /// Name of this node
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Leave the admin key unsealed on disk
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// A pool of one that opens no socket but loopback
    #[arg(long)]
    solo: bool,
}

pub(crate) async fn run(args: InitArgs, context: &Context<'_>) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let client = context.connection.open()?;
    let passphrase = match args.passphrase.read()? {
        Some(passphrase) => Some(passphrase),
        None if args.no_passphrase => None,
        None => Some(secret::ask_new(ui)?),
    };
    let request =
        InitRequest { pool: args.pool, studio: args.studio, name: args.name, passphrase, solo: args.solo };
    let reply = client.init(&request).await?;
    let sealed = if reply.sealed { Word::Sealed } else { Word::NotSealed };
    let mut table = Table::fields();
    table.field(ui.word(Word::Pool), format!("{}  {}", reply.pool_name, reply.pool));
    table.field(ui.word(Word::Studio), format!("{}  {}", reply.studio_name, reply.studio));
    table.field(ui.word(Word::Node), format!("{}  {}", reply.name, reply.node));
    table.field(ui.word(Word::AdminKey), format!("{}  ({})", reply.admin_key, ui.word(sealed)));
    if let Some(code) = &reply.recovery_code {
        table.field(ui.word(Word::RecoveryCode), code);
    }
    comfyui_fields(ui, &mut table, &reply.comfyui);
    ui.table(&table);
    if reply.recovery_code.is_some() {
        ui.talk(&Message::KeepRecoveryCode);
    }
    comfyui_talk(ui, &reply.comfyui);
    if args.solo {
        ui.talk(&Message::SoloSockets);
        ui.talk(&Message::NextSubmit);
    } else {
        ui.talk(&Message::NextSecondAdmin);
        ui.talk(&Message::NextInvite);
    }
    Outcome::of_reply(&reply)
}

/// What renders here.
pub(super) fn comfyui_fields(ui: &Ui, table: &mut Table, found: &[ComfyuiView]) {
    for comfyui in found.iter().filter(|comfyui| comfyui.configured || comfyui.version.is_some()) {
        let state = match (&comfyui.version, &comfyui.trouble) {
            (Some(version), _) => version.clone(),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => ui.word(Word::NoAnswer).to_owned(),
        };
        let unused = if comfyui.configured { "" } else { ui.word(Word::NotConfigured) };
        table.field("ComfyUI", format!("{}  {state}  {unused}", comfyui.url).trim_end());
    }
}

/// What could render here, but is not in the configuration.
pub(super) fn comfyui_talk(ui: &Ui, found: &[ComfyuiView]) {
    if found.iter().any(|comfyui| comfyui.configured) {
        return;
    }
    match found.iter().find(|comfyui| comfyui.version.is_some()) {
        Some(comfyui) => ui.talk(&Message::ComfyuiNotConfigured { url: comfyui.url.clone() }),
        None => ui.talk(&Message::NoComfyui),
    }
}
