//! `cookies` of a route.

use crate::config::{self, KeyPath, Problems, SameSite};
use crate::transform::set_cookie::{Cookies, Names};

pub(super) fn compile_cookies(
    cookies: &config::Cookies,
    path: &KeyPath,
    problems: &mut Problems,
) -> Option<Cookies> {
    let names = path.key("http_only");
    let mut valid = true;
    for (index, name) in cookies.http_only.iter().enumerate() {
        if !is_name(name) {
            problems.push(
                &names.index(index),
                format!("`{name}` is no name of a cookie"),
            );
            valid = false;
        }
    }
    if cookies.http_only.len() > 1 && cookies.http_only.iter().any(|name| name == EVERY) {
        problems.push(&names, "`*` stands alone: it means every cookie already");
        valid = false;
    }
    let http_only = match cookies.http_only.as_slice() {
        [] => Names::None,
        [every] if every == EVERY => Names::Every,
        listed => Names::Listed(listed.iter().map(|name| name.as_str().into()).collect()),
    };
    let same_site = cookies.same_site.map(|word| match word {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
        SameSite::None => "None",
    });
    valid.then_some(Cookies {
        secure: cookies.secure,
        http_only,
        same_site,
    })
}

/// A token of RFC 9110; `*` is one too.
fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

const EVERY: &str = "*";
