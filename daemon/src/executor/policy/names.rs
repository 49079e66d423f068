//! Whether a string that names something could lead elsewhere. Pure; asks no disk, so that the answer is the same for
//! whatever system the renderer has.
//!
//! A name is judged as each of the systems would read it at the worst: with look-alikes of separators mapped onto them (as
//! Windows does when a program is not written for Unicode), invisible characters left out, percent signs decoded, and both
//! slashes taken for separators.

use std::fmt;

/// What is wrong with a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offence {
    /// NUL or another control character.
    Control,
    /// Begins at the root, or on another host (`//host`, `\\host`, `\\?\`).
    Absolute,
    Drive,
    /// A component of dots: `..`, `...`, `.. `.
    Climbs,
    Home,
    Variable,
    Address,
    /// ComfyUI's `[output]` or `[temp]`: a file that is not the task's own.
    Annotation,
    /// `NUL`, `COM1`: on Windows no file, wherever it stands.
    Device,
    /// `name:stream`.
    Stream,
    /// A name must stand where a link stands.
    Linked,
    /// A link must stand where a value stands.
    NotLinked,
    NotAWord,
    NotBase64,
    TooDeep,
    /// Names a class that may not run.
    Class(String),
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "it has a control character",
            Self::Absolute => "it is an absolute path",
            Self::Drive => "it names a drive",
            Self::Climbs => "it climbs out of its folder (..)",
            Self::Home => "it names a home directory (~)",
            Self::Variable => "it names a variable of the system ($)",
            Self::Address => "it is an address, not a name",
            Self::Annotation => "it names a file of another task ([output] or [temp])",
            Self::Device => "it names a device",
            Self::Stream => "it has a colon, which no file's name has",
            Self::Linked => "it is linked: write the name itself there, what is linked cannot be checked",
            Self::NotLinked => "it must be linked: only another node can make what belongs there",
            Self::NotAWord => "it may have only letters, digits and . _ - + /",
            Self::NotBase64 => "it is not base64",
            Self::TooDeep => "it is nested too deeply to be checked",
            Self::Class(class) => return write!(f, "it runs the node class {class}, which is not allowed"),
        })
    }
}

/// How strictly a name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Any string of which nothing is known: `7, 8, 9`, `16:9`, `rgb(0, 153, 255)` are fine.
    Loose,
    /// A file, a model, a prefix of files.
    File,
}

/// More percent decodings in a row than anybody writes by mistake.
const ROUNDS: usize = 4;

/// Schemes of what opens files and addresses, ffmpeg's and Python's among them; written without `//` too.
const SCHEMES: [&str; 26] = [
    "about",
    "async",
    "blake3",
    "cache",
    "concat",
    "concatf",
    "crypto",
    "data",
    "fd",
    "file",
    "ftp",
    "gopher",
    "hf",
    "http",
    "https",
    "jar",
    "javascript",
    "mailto",
    "pipe",
    "rtmp",
    "rtsp",
    "smb",
    "subfile",
    "tcp",
    "udp",
    "unix",
];

/// Names that Windows keeps for itself, with any ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// What is wrong with a name, if anything.
pub(super) fn offence(text: &str, strictness: Strictness) -> Option<Offence> {
    let allowed = |c: char| strictness == Strictness::Loose && matches!(c, '\n' | '\r' | '\t');
    let mut form = plain(text);
    for _ in 0..ROUNDS {
        if form.chars().any(|c| c.is_control() && !allowed(c)) {
            return Some(Offence::Control);
        }
        if let Some(offence) = judge(&form, strictness) {
            return Some(offence);
        }
        match decoded(&form) {
            Some(decoded) => form = plain(&decoded),
            None => return None,
        }
    }
    Some(Offence::TooDeep)
}

/// What is wrong with free text: nothing but what no text has, and the names of embeddings that it loads.
pub(super) fn text_offence(text: &str) -> Option<Offence> {
    const MARK: &str = "embedding:";
    if text.contains('\0') {
        return Some(Offence::Control);
    }
    let lower = text.to_ascii_lowercase();
    lower.match_indices(MARK).find_map(|(at, _)| {
        let rest = &text[at + MARK.len()..];
        let name = rest.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
        offence(name, Strictness::Loose)
    })
}

/// What is wrong with a word of a command line.
pub(super) fn word_offence(text: &str) -> Option<Offence> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '/');
    if text.len() > 64 || text.starts_with('-') || !text.chars().all(fits) {
        return Some(Offence::NotAWord);
    }
    offence(text, Strictness::File)
}

pub(super) fn data_offence(text: &str) -> Option<Offence> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | '\n' | '\r');
    (!text.chars().all(fits)).then_some(Offence::NotBase64)
}

fn judge(form: &str, strictness: Strictness) -> Option<Offence> {
    let name = form.trim();
    let lower = name.to_ascii_lowercase();
    let mut chars = name.chars();
    let (first, second) = (chars.next()?, chars.next());
    if is_separator(first) {
        return Some(Offence::Absolute);
    }
    if first == '~' {
        return Some(Offence::Home);
    }
    if first.is_ascii_alphabetic() && second == Some(':') {
        return Some(Offence::Drive);
    }
    if is_address(&lower, strictness) {
        return Some(Offence::Address);
    }
    for component in name.split(is_separator) {
        let bare = component.trim_matches(|c: char| c == '.' || c.is_whitespace());
        if bare.is_empty() && component.matches('.').count() >= 2 {
            return Some(Offence::Climbs);
        }
        if is_variable(component) {
            return Some(Offence::Variable);
        }
        if strictness == Strictness::File && is_device(component) {
            return Some(Offence::Device);
        }
    }
    let end = lower.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if end.ends_with("[output]") || end.ends_with("[temp]") {
        return Some(Offence::Annotation);
    }
    (strictness == Strictness::File && without_placeholders(name).contains(':')).then_some(Offence::Stream)
}

fn is_separator(c: char) -> bool {
    matches!(c, '/' | '\\')
}

fn is_address(lower: &str, strictness: Strictness) -> bool {
    let scheme = lower.split([':', ',']).next().unwrap_or_default();
    let marked = scheme.len() < lower.len();
    let plain = scheme.len() >= 2
        && scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    let known = SCHEMES.contains(&scheme) && (lower[scheme.len()..].starts_with(':') || scheme == "subfile");
    lower.contains("://")
        || marked && known
        || marked && plain && strictness == Strictness::File && lower[scheme.len()..].starts_with(':')
}

/// `$NAME`, `${…}`, `$(…)`. Percent signs around a word are ComfyUI's own placeholders and stay.
fn is_variable(component: &str) -> bool {
    let mut after = component.match_indices('$').map(|(at, _)| component[at + 1..].chars().next());
    let leads = component.trim_start().strip_prefix('$').and_then(|rest| rest.chars().next());
    leads.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') || after.any(|c| matches!(c, Some('{' | '(')))
}

fn is_device(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim().to_ascii_lowercase();
    let numbered = |kind: &str| {
        stem.strip_prefix(kind).is_some_and(|n| n.len() == 1 && n.starts_with(|c: char| c.is_ascii_digit()))
    };
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

/// `%date:yyyy-MM-dd%`, `%KSampler.seed%`: what editors and ComfyUI put into prefixes.
fn without_placeholders(name: &str) -> String {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || " :_.-".contains(c));
    let parts: Vec<&str> = name.split('%').collect();
    let whole = parts.len() % 2 == 1;
    let kept = parts.iter().enumerate().filter(|(at, part)| !(whole && at % 2 == 1 && plain(part)));
    kept.map(|(_, part)| *part).collect::<Vec<_>>().join("%")
}

/// The text as the least careful reader takes it.
fn plain(text: &str) -> String {
    let mut form = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // The full-width forms of ASCII.
            '\u{ff01}'..='\u{ff5e}' => form.extend(char::from_u32(u32::from(c) - 0xfee0)),
            '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{2571}' | '\u{1735}' => form.push('/'),
            // The last two are the backslash of Japanese and Korean code pages.
            '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{fe68}' | '\u{2572}' | '\u{a5}' | '\u{20a9}' => {
                form.push('\\')
            }
            '\u{2024}' | '\u{fe52}' | '\u{3002}' | '\u{ff61}' => form.push('.'),
            '\u{2025}' => form.push_str(".."),
            '\u{2026}' => form.push_str("..."),
            '\u{fe55}' | '\u{2236}' | '\u{a789}' | '\u{2d0}' => form.push(':'),
            '\u{2dc}' | '\u{223c}' | '\u{2053}' => form.push('~'),
            '\u{fe6a}' | '\u{66a}' => form.push('%'),
            '\u{fe69}' => form.push('$'),
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' => {}
            other => form.push(other),
        }
    }
    form
}

/// One round of percent decoding, when it changes anything. Only ASCII: other bytes have no part in a path's structure.
fn decoded(text: &str) -> Option<String> {
    let hex = |c: char| c.to_digit(16);
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut changed) = (text, false);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let mut next = rest[at + 1..].chars();
        let digits = next.next().and_then(hex).zip(next.next().and_then(hex));
        match digits.map(|(high, low)| high * 16 + low).filter(|byte| *byte < 0x80).and_then(char::from_u32) {
            Some(c) => {
                out.push(c);
                changed = true;
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    changed.then_some(out)
}
