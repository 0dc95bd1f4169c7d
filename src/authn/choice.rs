//! Which of the issuers of a place a token is of. `iss` chooses, before any key is touched.
//!
//! A token that was verified before need not be understood to be recognised: where few issuers are named, each is asked
//! whether it knows the token. Where many are, the letters of `iss` are looked up in what the token says, unchecked: they
//! only tell whose memory to search first, and a token is in nobody's memory who has not verified it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

use super::Issuer;

/// The issuers of one place.
#[derive(Debug, Default)]
pub(super) struct Choice {
    issuers: Box<[Arc<Issuer>]>,
    /// Empty where few are named.
    by_url: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
}

/// Up to here, asking each is cheaper than finding out whom to ask.
const FEW: usize = 4;

/// How much of a token is searched for `iss`; issuers write it early. What is not found costs time, nothing else.
const SEARCHED: usize = 2_048;

impl Choice {
    /// The one that calls itself so.
    pub(super) fn named(&self, url: &str) -> Option<&Arc<Issuer>> {
        if self.are_few() {
            return self.issuers.iter().find(|issuer| issuer.url() == url);
        }
        self.issuers.get(*self.by_url.get(url)?)
    }

    /// Those who may know `token` already: all, or the one that it seems to be of.
    pub(super) fn familiar(&self, token: &str) -> &[Arc<Issuer>] {
        if self.are_few() {
            return &self.issuers;
        }
        let position = self.position_of(token);
        let found = position.and_then(|position| self.issuers.get(position..=position));
        found.unwrap_or_default()
    }

    /// Whether every one of them is asked whether it knows a token.
    pub(super) fn are_few(&self) -> bool {
        self.issuers.len() <= FEW
    }

    pub(super) fn as_slice(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    fn position_of(&self, token: &str) -> Option<usize> {
        let mut space = [0; SEARCHED];
        let stated = seems_of(token, &mut space)?;
        self.by_url.get(stated).copied()
    }
}

impl From<Vec<Arc<Issuer>>> for Choice {
    fn from(issuers: Vec<Arc<Issuer>>) -> Self {
        let mut by_url = HashMap::default();
        if issuers.len() > FEW {
            by_url.extend(
                issuers
                    .iter()
                    .enumerate()
                    .map(|(at, one)| (one.url().into(), at)),
            );
        }
        Self {
            issuers: issuers.into(),
            by_url,
        }
    }
}

/// What stands where `iss` usually does. Nothing is checked, and nothing may be believed of it.
fn seems_of<'s>(token: &str, space: &'s mut [u8; SEARCHED]) -> Option<&'s str> {
    let payload = token.split('.').nth(1)?;
    // Whole groups of four letters, each of which is three bytes.
    let most = SEARCHED / 3 * 4;
    let start = payload.get(..most).unwrap_or(payload);
    let length = URL_SAFE_NO_PAD.decode_slice(start, space).ok()?;
    let claims = space.get(..length)?;
    let name = memmem::find(claims, b"\"iss\"")?;
    let rest = claims.get(name + 5..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"")?;
    let value = rest.get(..memchr::memchr(b'"', rest)?)?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::support::{authorities, b64, file, key_set};
    use super::*;
    use proptest::prelude::*;

    fn seems(payload: impl AsRef<[u8]>) -> Option<String> {
        let mut space = [0; SEARCHED];
        let token = format!("e30.{}.x", b64(payload));
        seems_of(&token, &mut space).map(str::to_owned)
    }

    #[test]
    fn the_letters_of_iss_are_found_where_issuers_write_them() {
        let found = Some("https://a".to_owned());
        assert_eq!(seems(r#"{"iss":"https://a","sub":"u"}"#), found);
        assert_eq!(seems(r#"{"sub": "u", "iss" : "https://a"}"#), found);
        let long = format!(r#"{{"iss":"https://a","roles":"{}"}}"#, "r".repeat(9_000));
        assert_eq!(seems(long), found);
        for none in [
            r#"{"iss":["https://a"]}"#,
            r#"{"sub":"u"}"#,
            "",
            "{\"iss\":\"x",
        ] {
            assert_eq!(seems(none), None, "{none}");
        }
        let late = format!(r#"{{"roles":"{}","iss":"https://a"}}"#, "r".repeat(9_000));
        assert_eq!(seems(late), None, "it costs time, nothing else");
    }

    fn choice(count: usize) -> Choice {
        let keys = file(key_set().to_string());
        let toml: String = (0..count)
            .map(|at| {
                format!(
                    "[issuer.i{at}]\nurl = \"https://i{at}.example\"\naudiences = [\"a\"]\njwks_file = \"{keys}\"\n"
                )
            })
            .collect();
        let issuers: Vec<_> = authorities(&toml).issuers.values().cloned().collect();
        Choice::from(issuers)
    }

    #[test]
    fn few_and_many_are_chosen_alike() {
        for count in [1, FEW, FEW + 1, 40] {
            let choice = choice(count);
            for at in 0..count {
                let url = format!("https://i{at}.example");
                assert_eq!(choice.named(&url).unwrap().url(), url);
                let token = format!("e30.{}.x", b64(format!(r#"{{"iss":"{url}"}}"#)));
                let familiar = choice.familiar(&token);
                assert!(familiar.iter().any(|issuer| issuer.url() == url), "{url}");
                assert!(familiar.len() <= FEW);
            }
            assert!(choice.named("https://i.example").is_none());
        }
    }

    proptest! {
        #[test]
        fn no_token_makes_the_search_panic(token in "[A-Za-z0-9_.=-]{0,120}", payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut space = [0; SEARCHED];
            let _ = seems_of(&token, &mut space);
            let _ = seems(payload);
        }
    }
}
