//! One `Cookie` field. HTTP/2 clients send a field for each cookie so that it compresses better; to HTTP/1.1 they must be
//! one (RFC 9113 section 8.2.3), and backends that read the first field alone would miss the rest.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use crate::types::{Reason, Rejection};

/// Joins the `Cookie` fields, if there is more than one.
pub(super) fn join(headers: &mut HeaderMap) -> Result<(), Rejection> {
    let mut fields = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (fields.next(), fields.next()) else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for field in std::iter::once(second).chain(fields) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field.as_bytes());
    }
    let mut joined = HeaderValue::try_from(joined)
        .map_err(|_| Rejection::because(Reason::BadField, "the cookies are no header value"))?;
    joined.set_sensitive(true);
    headers.insert(COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[&'static str], expected: &[&str]) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_static(field));
        }
        join(&mut headers).unwrap();
        let seen: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn crumbs_become_one_field_in_their_order() {
        check(&[], &[]);
        check(&["a=1; b=2"], &["a=1; b=2"]);
        check(&["a=1", "b=2", "c=3; d=4"], &["a=1; b=2; c=3; d=4"]);
    }
}
