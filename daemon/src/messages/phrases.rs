//! Korean for sentences that reach people as English text: what a peer of the same release says, what a journal
//! remembers of a failure, what a module far below found. Each is known by its English wording; a test holds every one
//! of them against the sources, so that a sentence that is reworded here or there is seen.

use super::Lang;

mod book;

/// Holes within holes are followed this deep.
const DEPTH: u8 = 4;
/// Longer texts stay as they came.
const LONGEST: usize = 8192;

/// The text in that language, part by part between semicolons; parts that are not known stay as they came.
pub fn phrase(lang: Lang, text: &str) -> String {
    match lang {
        Lang::En => text.to_owned(),
        Lang::Ko => korean(text, DEPTH),
    }
}

fn korean(text: &str, depth: u8) -> String {
    if depth == 0 || text.len() > LONGEST {
        return text.to_owned();
    }
    if let Some(whole) = known(text, depth) {
        return whole;
    }
    if !text.contains("; ") {
        return text.to_owned();
    }
    let parts = text.split("; ").map(|part| known(part, depth).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join("; ")
}

fn known(text: &str, depth: u8) -> Option<String> {
    book::PHRASES.iter().find_map(|(english, korean)| fill(korean, &holes(english, text)?, depth))
}

/// What stands in the holes (`{}`) of a pattern: each as short as can be, the last up to the pattern's end. No hole
/// holds a semicolon: there a sentence ends.
fn holes<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split("{}");
    let mut rest = text.strip_prefix(pieces.next()?)?;
    let mut pieces = pieces.peekable();
    let mut holes = Vec::new();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            holes.push(rest.strip_suffix(piece)?);
            return (!holes.iter().any(|hole| hole.is_empty() || hole.contains("; "))).then_some(holes);
        }
        let at = rest.find(piece)?;
        holes.push(&rest[..at]);
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty().then_some(holes)
}

/// `{0}` as it came, `{0~}` in Korean if it is known; `{0!}` must be known and `{0#}` a number, or the
/// pattern is none.
fn fill(korean: &str, holes: &[&str], depth: u8) -> Option<String> {
    let mut text = String::new();
    let mut rest = korean;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (hole, after) = after.split_once('}')?;
        let held = *holes.get(hole.trim_end_matches(['~', '!', '#']).parse::<usize>().ok()?)?;
        match hole.chars().last() {
            Some('~') => text.push_str(&self::korean(held, depth - 1)),
            Some('!') => text.push_str(&Some(self::korean(held, depth - 1)).filter(|told| told != held)?),
            Some('#') if held.parse::<u64>().is_err() => return None,
            _ => text.push_str(held),
        }
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests;
