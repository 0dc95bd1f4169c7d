//! No bytes make the reader of tokens panic, and what it takes apart is what was sent.

use proptest::prelude::*;

use super::shape::Shape;
use super::{Window, json};
use crate::authn::tests::support::{at, b64};

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(token in "\\PC{0,200}") {
        let _ = Shape::parse(&token);
    }

    #[test]
    fn no_three_parts_make_the_parser_panic(
        header in "[ -~]{0,80}", payload in proptest::collection::vec(any::<u8>(), 0..80), signature in "[A-Za-z0-9_=-]{0,90}",
    ) {
        let _ = Shape::parse(&format!("{}.{}.{signature}", b64(header), b64(payload)));
    }

    #[test]
    fn no_bytes_make_the_json_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::object(&bytes);
    }

    #[test]
    fn what_the_json_reader_takes_serde_json_takes_too(text in "[\\[\\]{}\":,0-9a\\\\u. -]{0,40}") {
        if let Ok(object) = json::object(text.as_bytes()) {
            let same: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::Value::Object(object), same);
        }
    }

    #[test]
    fn no_time_makes_the_clock_overflow(exp in any::<f64>(), nbf in any::<i64>(), wall in any::<u32>()) {
        let claims = serde_json::json!({ "exp": exp, "nbf": nbf });
        if let Ok(window) = Window::of(claims.as_object().unwrap()) {
            let _ = window.check(at(wall.into()), std::time::Duration::from_secs(30));
            let _ = window.expires_at();
        }
    }

    #[test]
    fn a_token_is_taken_apart_at_its_dots(payload in "\\{\"sub\":\"[a-z]{0,9}\"\\}", signature in proptest::collection::vec(any::<u8>(), 0..70)) {
        let message = format!("{}.{}", b64(r#"{"alg":"ES256"}"#), b64(&payload));
        let token = format!("{message}.{}", b64(&signature));
        let shape = Shape::parse(&token).unwrap();
        prop_assert_eq!(shape.jws.message, message);
        prop_assert_eq!(shape.jws.signature, signature);
        prop_assert_eq!(serde_json::Value::Object(shape.claims).to_string(), payload);
    }
}
