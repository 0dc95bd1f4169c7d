//! JSON without a second reading: a name occurs once, nesting is bounded, nothing follows the value.
//!
//! Two parsers that disagree about a duplicate name see two different tokens; so a token that has one is no token.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why bytes are no acceptable JSON object. Tells the place, never the content.
#[derive(Debug)]
pub struct NotStrict(serde_json::Error);

impl fmt::Display for NotStrict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not acceptable JSON: {}", self.0)
    }
}

impl std::error::Error for NotStrict {}

/// Reads one object: valid UTF-8, names unique at every depth, at most [`MAX_DEPTH`] levels, no trailing bytes.
///
/// # Errors
/// [`NotStrict`] when the bytes are anything else.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, NotStrict> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match read.map_err(NotStrict)? {
        Value::Object(map) => Ok(map),
        _ => Err(NotStrict(serde_json::Error::custom("not an object"))),
    }
}

/// How many levels objects and arrays may nest, the outermost counted.
pub const MAX_DEPTH: u8 = 16;

#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut object = Map::new();
        while let Some(Name(name)) = members.next_key()? {
            // Escapes are resolved by now: `alg` and `\u0061lg` are the same name.
            if object.contains_key(&name) {
                return Err(A::Error::custom("a name occurs twice"));
            }
            object.insert(name, members.next_value_seed(inside)?);
        }
        Ok(Value::Object(object))
    }
}

struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert!(object(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn an_object_reads_as_serde_json_reads_it() {
        let text = r#" {"a":[1,-2,3.5,true,null,"\u00e9\ud83d\ude00"],"b":{"c":{}}} "#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_at_every_depth_and_in_every_escape() {
        refused(r#"{"a":1,"a":1}"#);
        refused(r#"{"alg":1,"\u0061lg":1}"#);
        refused(r#"{"x":{"y":[{"a":1,"a":2}]}}"#);
        assert!(object(br#"{"a":{"a":{"a":1}}}"#).is_ok());
    }

    #[test]
    fn sixteen_levels_are_read_and_seventeen_are_not() {
        let nested = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(object(nested(16).as_bytes()).is_ok());
        refused(nested(17));
        refused(nested(100_000));
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{}{}",
            "{} x",
            "{},",
            "\u{feff}{}",
            "{\"a\":}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":1e999}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
        ] {
            refused(text);
        }
        refused(b"{\"a\":\"\xff\"}");
        refused(b"{\"a\":\"\xc0\xaf\"}");
    }

    #[test]
    fn the_error_tells_the_place_and_not_the_content() {
        let error = object(br#"{"secret":1,"secret":2}"#).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
