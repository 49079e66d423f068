//! A failed request, worded in every language: the answer's language is known only where the answer leaves.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use scenemesh_protocol::api::{ErrorBody, ErrorCode};

use crate::messages::{Lang, Message, phrase};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    code: ErrorCode,
    /// Where HTTP has a status of its own for it.
    status: Option<StatusCode>,
    english: Words,
    korean: Words,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    message: String,
    hint: Option<String>,
}

impl Trouble {
    pub(super) fn new(code: ErrorCode, message: &Message) -> Self {
        let words = |lang| Words { message: message.text(lang), hint: None };
        Self { code, status: None, english: words(Lang::En), korean: words(Lang::Ko) }
    }

    /// An error of a module below, whose sentence has its hint after the last semicolon. `korean` is its
    /// translation, made the same way; without one, the sentence is looked up among those that are known.
    pub(super) fn of(code: ErrorCode, error: &impl std::fmt::Display, korean: Option<String>) -> Self {
        let english = error.to_string();
        let korean = Words::of(&korean.unwrap_or_else(|| phrase(Lang::Ko, &english)));
        let english = Words::of(&english);
        Self { code, status: None, english, korean }
    }

    /// Our own mistake, or a disk's.
    pub(super) fn broke(error: &impl std::fmt::Display) -> Self {
        let what = error.to_string();
        let words =
            |lang| Words { message: Message::Broke { what: phrase(lang, &what) }.text(lang), hint: None };
        let (english, korean) = (words(Lang::En), words(Lang::Ko));
        Self { code: ErrorCode::Internal, status: None, english, korean }.hint(&Message::HintLog)
    }

    pub(super) fn stopping() -> Self {
        Self::new(ErrorCode::Stopping, &Message::Stopping).hint(&Message::HintRestart)
    }

    pub(super) fn hint(mut self, hint: &Message) -> Self {
        self.english.hint = Some(hint.text(Lang::En));
        self.korean.hint = Some(hint.text(Lang::Ko));
        self
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) fn body(&self, lang: Lang) -> ErrorBody {
        let words = match lang {
            Lang::En => &self.english,
            Lang::Ko => &self.korean,
        };
        ErrorBody { code: self.code, message: words.message.clone(), hint: words.hint.clone() }
    }

    /// The answer, in one language.
    pub(super) fn answer(&self, lang: Lang) -> Response {
        let status = self.status.unwrap_or_else(|| {
            StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        });
        (status, Json(self.body(lang))).into_response()
    }
}

impl Words {
    fn of(sentence: &str) -> Self {
        match sentence.rsplit_once("; ") {
            Some((message, hint)) => Self { message: message.to_owned(), hint: Some(hint.to_owned()) },
            None => Self { message: sentence.to_owned(), hint: None },
        }
    }
}

/// Travels beside an English answer to the outermost layer, which knows the language.
impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut response = self.answer(Lang::En);
        response.extensions_mut().insert(self);
        response
    }
}
