//! What a command can fail with: a code that becomes the exit code, what happened, and one thing to do next.

use scenemesh_protocol::api::{ErrorBody, ErrorCode};

use crate::messages::{Lang, Message};

/// Words of this program, in either language, or of somebody else, as they are.
#[derive(Clone, Debug)]
enum Words {
    Ours(Message),
    Theirs(String),
}

impl Words {
    fn text(&self, lang: Lang) -> String {
        match self {
            Self::Ours(message) => message.text(lang),
            Self::Theirs(text) => text.clone(),
        }
    }
}

impl From<Message> for Words {
    fn from(message: Message) -> Self {
        Self::Ours(message)
    }
}

/// Why the operating system refused, without its number: the words say it.
pub(crate) fn os_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error ").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// A command's failure.
#[derive(Clone, Debug)]
pub struct CliError {
    pub code: ErrorCode,
    message: Box<Words>,
    hint: Option<Box<Words>>,
}

impl CliError {
    pub fn new(code: ErrorCode, message: Message, hint: Message) -> Self {
        Self { code, message: Box::new(message.into()), hint: Some(Box::new(hint.into())) }
    }

    pub fn usage(message: Message, hint: Message) -> Self {
        Self::new(ErrorCode::Usage, message, hint)
    }

    /// A file here cannot be read or written; `tried` is the sentence.
    pub fn file(tried: Message, hint: Message) -> Self {
        Self::new(ErrorCode::File, tried, hint)
    }

    /// Names the file that somebody else's sentence is about.
    pub(crate) fn about(mut self, path: &std::path::Path) -> Self {
        if let Words::Theirs(text) = &mut *self.message {
            *text = format!("{}: {text}", path.display());
        }
        self
    }

    /// Our own mistake.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, Message::OurBug { what: what.into() }, Message::HintOurBug)
    }

    /// As JSON has it, in this language.
    pub fn body(&self, lang: Lang) -> ErrorBody {
        ErrorBody {
            code: self.code,
            message: self.message.text(lang),
            hint: self.hint.as_ref().map(|hint| hint.text(lang)),
        }
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message.text(Lang::En))
    }
}

impl std::error::Error for CliError {}

/// The daemon's words: it was told the language.
impl From<ErrorBody> for CliError {
    fn from(body: ErrorBody) -> Self {
        let theirs = |text| Box::new(Words::Theirs(text));
        Self { code: body.code, message: theirs(body.message), hint: body.hint.map(theirs) }
    }
}
