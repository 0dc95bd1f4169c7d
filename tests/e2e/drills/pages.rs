//! A login of pages, as older ones are: a right password is sent on with 303, a wrong one gets the page again, with 200.

use super::{ACCOUNTS, PASSWORD, Tried};
use crate::support::origin::{self, Origin, Reply, Seen};

pub(super) async fn run() -> Origin {
    origin::http().otherwise(answer).run().await
}

/// The same, with an answer that does not tell: whoever asks learns it from the page alone.
pub(super) async fn run_silent() -> Origin {
    let silent = |seen: &Seen| match read(seen).is_right {
        true => Reply::text("<p>welcome</p>"),
        false => Reply::text("<p>wrong password</p>"),
    };
    origin::http().otherwise(silent).run().await
}

fn answer(seen: &Seen) -> Reply {
    if read(seen).is_right {
        return Reply::empty(303).header("location", "/home");
    }
    Reply::text("<p>wrong password</p>").header("content-type", "text/html")
}

fn read(seen: &Seen) -> Tried {
    let text = seen.text();
    let field = |name: &str| {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(known, _)| *known == name);
        values.next().map(|(_, value)| value).unwrap_or_default()
    };
    let user = field("login").to_lowercase();
    let number = user.strip_prefix("user").and_then(|n| n.parse().ok());
    let is_known = number.is_some_and(|number: usize| number < ACCOUNTS);
    let is_right = is_known && field("password") == PASSWORD;
    Tried::new(&user, Some(seen.header("x-forwarded-for")), is_right)
}

pub(super) fn tried(origin: &Origin) -> Vec<Tried> {
    origin.saw().iter().map(read).collect()
}
