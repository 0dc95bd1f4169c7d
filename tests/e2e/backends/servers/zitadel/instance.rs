//! Which instance a request is for and where it thinks it lives: ZITADEL looks through a row of headers before it
//! believes the Host, and builds links for mails, discovery and the console from what it finds.

use crate::support::origin::Seen;

/// The `ExternalDomain`.
pub const HOST: &str = "auth.example.com";

/// The public origin as this request makes it. `None`: no instance has this domain.
pub fn origin(seen: &Seen) -> Option<String> {
    let elements = |name: &str| seen.all(name).join(",");
    let forwarded = [
        elements("forwarded"),
        elements("x-zitadel-forwarded"),
        elements("x-forwarded-for"), // parsed as if it were Forwarded
    ];
    let parameter = |name| {
        let found = forwarded.iter().find_map(|text| parameter(text, name));
        found.filter(|value| !value.is_empty())
    };
    let header = |name: &str| seen.all(name).first().map(|value| (*value).to_owned());

    let instance = header("x-zitadel-instance-host")
        .or_else(|| parameter("host"))
        .or_else(|| header("x-forwarded-host"))
        .unwrap_or_else(|| seen.authority.clone());
    if instance.split(':').next() != Some(HOST) {
        return None;
    }
    let public = header("x-zitadel-public-host").unwrap_or(instance);
    let scheme = parameter("proto")
        .or_else(|| header("x-forwarded-proto"))
        .unwrap_or_else(|| "http".to_owned());
    Some(format!("{scheme}://{public}"))
}

/// The value of `name=value` in a `Forwarded` header.
fn parameter(text: &str, name: &str) -> Option<String> {
    text.split([',', ';']).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('"').to_owned())
    })
}
