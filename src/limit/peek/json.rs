//! Fields of a JSON body, found in one pass and without a tree of the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Content, TWICE, Wanted, folds_to};

/// What the wanted fields hold. Everything else is only held to be JSON; nothing recurses deeper than the longest path.
///
/// # Errors
/// What makes the whole body unreadable.
pub(super) fn read(body: &[u8], wanted: &[Wanted]) -> Result<Vec<Content>, &'static str> {
    // Backends repair what is no UTF-8, each in its own way.
    let text = std::str::from_utf8(body).map_err(|_| "no UTF-8")?;
    let mut contents = vec![Content::Absent; wanted.len()];
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = Members {
        wanted,
        found: &mut contents,
        depth: 0,
        inside: &everything(wanted.len()),
    };
    let read = deserializer
        .deserialize_map(members)
        .and_then(|()| deserializer.end());
    match read {
        Ok(()) => Ok(contents),
        Err(_) => Err("no JSON object"),
    }
}

/// Which of the wanted paths lead through the object at hand.
fn everything(count: usize) -> Vec<usize> {
    (0..count).collect()
}

/// Reads the members of one object.
struct Members<'a> {
    wanted: &'a [Wanted],
    found: &'a mut [Content],
    depth: usize,
    inside: &'a [usize],
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.wanted.len()];
        while let Some(Name(name)) = members.next_key()? {
            let leads = |position: &&usize| {
                let path = self.wanted.get(**position).map(|wanted| &wanted.path);
                let name_here = path.and_then(|path| path.get(self.depth));
                name_here.is_some_and(|folded| folds_to(&name, folded))
            };
            let through: Vec<usize> = self.inside.iter().filter(leads).copied().collect();
            if through.is_empty() {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            members.next_value_seed(Member {
                wanted: self.wanted,
                found: self.found,
                depth: self.depth + 1,
                inside: &through,
            })?;
            for position in through {
                let before = seen.get_mut(position);
                let again = before.is_some_and(|seen| std::mem::replace(seen, true));
                if let (true, Some(content)) = (again, self.found.get_mut(position)) {
                    *content = Content::Unreadable(TWICE);
                }
            }
        }
        Ok(())
    }
}

/// Reads the value of a member that paths lead to.
struct Member<'a> {
    wanted: &'a [Wanted],
    found: &'a mut [Content],
    depth: usize,
    inside: &'a [usize],
}

impl Member<'_> {
    /// Whether the path ends here.
    fn is_end(&self, position: usize) -> bool {
        let wanted = self.wanted.get(position);
        wanted.is_some_and(|wanted| wanted.path.len() == self.depth)
    }

    /// Notes what stands here: `end` where a path ends, `Unreadable` where one should have led on.
    fn note(&mut self, end: &Content) {
        for position in self.inside {
            let content = if self.is_end(*position) {
                end.clone()
            } else {
                Content::Unreadable(OTHER_TYPE)
            };
            if let Some(found) = self.found.get_mut(*position) {
                *found = content;
            }
        }
    }

    fn scalar<E>(mut self) -> Result<(), E> {
        self.note(&Content::Unreadable(OTHER_TYPE));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.note(&Content::Text(text.to_owned()));
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.scalar()
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        let (ends, on): (Vec<usize>, Vec<usize>) = self
            .inside
            .iter()
            .partition(|position| self.is_end(**position));
        let Member {
            wanted,
            found,
            depth,
            ..
        } = self;
        for position in ends {
            if let Some(content) = found.get_mut(position) {
                *content = Content::Unreadable(OTHER_TYPE);
            }
        }
        let inside = &on;
        Members {
            wanted,
            found,
            depth,
            inside,
        }
        .visit_map(members)
    }
}

/// Escapes are resolved by now: `email` and `\u0065mail` are one name.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

const OTHER_TYPE: &str = "a field of another type";
