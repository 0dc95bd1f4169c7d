//! What a body says about whose account a request is for.
//!
//! A body is read only on routes whose limits ask for it, only when it is whole within the bound and the deadline, and
//! only in the one way in which every backend reads it. Anything else is unreadable, and all of it counts as one key:
//! a body that we and the backend read differently would name one account to us and another to the backend.
//!
//! Names are compared as the most lenient backend compares them, by their letters and digits alone: `loginName`,
//! `login_name` and `LoginName` are one field (Go's `encoding/json` ignores case and takes the long s for an s,
//! protobuf's JSON takes both spellings), and two of them in one body are a field that occurs twice.
//!
//! Reading the bytes off the connection, and handing them on untouched, is `types::body`'s.

mod form;
mod json;
mod media;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::Limit;
use super::key::folded;
use crate::config::LimitKey;
use media::Media;

/// What the limits of one route want of a body.
#[derive(Debug)]
pub struct PeekPlan {
    wanted: Arc<[Wanted]>,
    most: usize,
    patience: Duration,
    /// Whether messages of gRPC are to be expected.
    grpc: bool,
}

/// One field.
#[derive(Debug)]
struct Wanted {
    part: LimitKey,
    /// The names that lead to it, as they are compared.
    path: Box<[Box<str>]>,
}

/// What was read of a body.
#[derive(Debug, Default)]
pub struct Peeked(Reading);

#[derive(Debug, Default)]
enum Reading {
    /// There was none, or nobody asked.
    #[default]
    Nothing,
    /// Messages of gRPC, as the route promises: nothing is wrong with them, but they name nobody.
    Opaque,
    /// It cannot be read in one way only.
    Unreadable(&'static str),
    /// What the wanted fields hold, one by one.
    Fields(Arc<[Wanted]>, Vec<Content>),
}

/// What a field holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    Absent,
    Text(String),
    Unreadable(&'static str),
}

/// What a field holds, for whoever makes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'p> {
    /// Nothing, or nothing but space.
    Absent,
    /// This, as it was sent.
    Text(&'p str),
    /// What cannot be read in one way only, and why.
    Unreadable(&'static str),
    /// A message of gRPC.
    Opaque,
}

impl PeekPlan {
    /// What `limits` want, together; `None` if nothing. `grpc` says whether the route is one of gRPC services.
    #[must_use]
    pub fn of<'l>(limits: impl Iterator<Item = &'l Limit> + Clone, grpc: bool) -> Option<Self> {
        let limits = limits.filter(|limit| limit.needs_body());
        let written = || limits.clone().map(|limit| &limit.written);
        let most = written().map(|written| written.peek.0).max()?;
        let patience = written().map(|written| written.peek_timeout.0).max()?;
        Some(Self {
            wanted: wanted(limits.flat_map(|limit| limit.in_body())),
            most: usize::try_from(most).unwrap_or(usize::MAX),
            patience,
            grpc,
        })
    }

    /// Largest body that is read.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Longest wait for it.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What the head says already. `None`: the body is to be read.
    #[must_use]
    pub fn foresee(&self, headers: &HeaderMap) -> Option<Peeked> {
        self.media(headers).err().map(Peeked)
    }

    /// What `body`, the whole of it, holds. `query` is looked at because backends that merge both would find there what
    /// the body leaves out.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Peeked {
        let media = match self.media(headers) {
            Ok(media) => media,
            Err(reading) => return Peeked(reading),
        };
        if body.is_empty() {
            return Peeked::default();
        }
        let contents = match media {
            Media::Json => json::read(body, &self.wanted),
            Media::Form => form::read(body, &self.wanted),
        };
        let mut contents = match contents {
            Ok(contents) => contents,
            Err(why) => return Peeked::unreadable(why),
        };
        if let Some(query) = query {
            form::look_in_query(query, &self.wanted, &mut contents);
        }
        // The other kind of body is not there.
        for (wanted, content) in self.wanted.iter().zip(&mut contents) {
            if !media.holds(&wanted.part) {
                *content = Content::Absent;
            }
        }
        Peeked(Reading::Fields(Arc::clone(&self.wanted), contents))
    }

    fn media(&self, headers: &HeaderMap) -> Result<Media, Reading> {
        if self.grpc && media::is_message(headers) {
            return Err(Reading::Opaque);
        }
        let media = media::of(headers).map_err(Reading::Unreadable)?;
        let is_wanted = self.wanted.iter().any(|wanted| media.holds(&wanted.part));
        if is_wanted {
            Ok(media)
        } else {
            Err(Reading::Unreadable("another content type"))
        }
    }
}

/// Every field once, whichever limits ask for it.
fn wanted<'a>(parts: impl Iterator<Item = &'a LimitKey>) -> Arc<[Wanted]> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for part in parts {
        if wanted.iter().all(|known| known.part != *part) {
            wanted.extend(Wanted::of(part));
        }
    }
    wanted.into()
}

impl Wanted {
    fn of(part: &LimitKey) -> Option<Self> {
        let path = match part {
            LimitKey::Json(path) => path.split('.').map(fold).collect(),
            LimitKey::Form(field) => Box::from([fold(field)]),
            _ => return None,
        };
        Some(Self {
            part: part.clone(),
            path,
        })
    }

    /// The name of the field itself.
    fn name(&self) -> &str {
        self.path.last().map_or("", |name| name)
    }
}

impl Peeked {
    /// The body could not be read, for this reason.
    #[must_use]
    pub fn unreadable(why: &'static str) -> Self {
        Self(Reading::Unreadable(why))
    }

    /// What the field that `part` names holds.
    #[must_use]
    pub fn find(&self, part: &LimitKey) -> Field<'_> {
        match &self.0 {
            Reading::Nothing => Field::Absent,
            Reading::Opaque => Field::Opaque,
            Reading::Unreadable(why) => Field::Unreadable(why),
            Reading::Fields(wanted, contents) => {
                let mut found = wanted.iter().zip(contents);
                match found.find(|(wanted, _)| wanted.part == *part) {
                    Some((_, Content::Text(text))) if !text.trim().is_empty() => Field::Text(text),
                    Some((_, Content::Unreadable(why))) => Field::Unreadable(why),
                    Some((_, Content::Text(_) | Content::Absent)) | None => Field::Absent,
                }
            }
        }
    }
}

#[cfg(test)]
impl PeekPlan {
    /// What a key of `parts` wants.
    pub(super) fn of_parts(parts: &[LimitKey]) -> Option<Self> {
        let wanted = wanted(parts.iter());
        (!wanted.is_empty()).then_some(Self {
            wanted,
            most: 16 * 1024,
            patience: Duration::from_secs(5),
            grpc: false,
        })
    }
}

/// A name by its letters and digits.
fn fold(name: &str) -> Box<str> {
    let letters = folded(name).filter(|letter| letter.is_alphanumeric());
    letters.collect()
}

/// Whether `name` folds to `known`, without making a string.
fn folds_to(name: &str, known: &str) -> bool {
    if name.is_ascii() {
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        return letters
            .map(|letter| letter.to_ascii_lowercase())
            .eq(known.bytes());
    }
    let letters = folded(name).filter(|letter| letter.is_alphanumeric());
    letters.eq(known.chars())
}

const TWICE: &str = "a field occurs twice";
