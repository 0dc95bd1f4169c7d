//! What a rule in CEL sees: claims, the request and the client, lent and not copied. A claim becomes a value of CEL when
//! a rule reaches for it, and what an evaluation may turn over that way is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, MAP_TYPE,
    Type,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::rule::Asked;

/// Values that one evaluation may take out of the claims; a rule over a longer list refuses.
pub(super) const MOST_VALUES: u32 = 2_048;

/// The variables of a rule.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    claims: Claims<'a>,
    request: Request<'a>,
    client: Client,
}

#[derive(Clone, Copy, Debug)]
struct Claims<'a> {
    claims: &'a Map<String, Value>,
    /// Of the evaluation: a copy takes out of the same.
    left: &'a AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Request<'a>(Asked<'a>);

#[derive(Clone, Copy, Debug)]
struct Headers<'a>(&'a HeaderMap);

#[derive(Clone, Copy, Debug)]
struct Client(IpAddr);

impl<'a> Variables<'a> {
    /// `left` is how many values may still be taken out of the claims, [`MOST_VALUES`] at first.
    pub(super) fn new(
        claims: &'a Map<String, Value>,
        asked: &Asked<'a>,
        left: &'a AtomicU32,
    ) -> Self {
        Self {
            claims: Claims { claims, left },
            request: Request(*asked),
            client: Client(asked.client.address()),
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "claims" => Some(CowVal::Borrowed(&self.claims)),
            "request" => Some(CowVal::Borrowed(&self.request)),
            "client" => Some(CowVal::Borrowed(&self.client)),
            _ => None,
        }
    }
}

/// Whether a rule may read this header. Not those that carry credentials (`authn` alone reads them), nor those by which
/// proxies tell the client's address (`client_ip` alone believes them, and seldom).
pub(super) fn is_readable(name: &str) -> bool {
    !matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "dpop"
            | "forwarded"
            | "via"
            | "x-real-ip"
            | "x-csrf-token"
    ) && !name.starts_with("x-forwarded-")
        && !name.contains('_')
}

impl<'a> Claims<'a> {
    fn at(&self, name: &dyn Val) -> Result<Option<&'a Value>, ExecutionError> {
        Ok(self.claims.get(text(name)?))
    }

    /// `value` as CEL has it. Texts are lent.
    fn lend(&self, value: &'a Value) -> Result<Box<dyn Val + 'a>, ExecutionError> {
        let spent = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if spent.is_err() {
            let message = format!("more than {MOST_VALUES} values");
            return Err(ExecutionError::function_error("claims", message));
        }
        Ok(match value {
            Value::Null => Box::new(CelNull),
            Value::Bool(given) => Box::new(CelBool::from(*given)),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Box::new(CelInt::from(whole)),
                (None, Some(whole)) => Box::new(CelUInt::from(whole)),
                (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
            },
            Value::String(text) => Box::new(CelString::from(text.as_str())),
            Value::Array(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.lend(item)).collect();
                Box::new(CelList::from(items?))
            }
            Value::Object(members) => {
                let mut map = HashMap::with_capacity(members.len());
                for (name, value) in members {
                    map.insert(CelMapKey::from(name.as_str()), self.lend(value)?);
                }
                Box::new(CelMap::from(map))
            }
        })
    }
}

/// A value that is a map to the rule: it can be indexed and asked for its names, and nothing else.
macro_rules! lent_map {
    ($type:ident $(<$life:lifetime>)?, clone = |$this:ident| $clone:expr) => {
        impl $(<$life>)? Val for $type $(<$life>)? {
            fn get_type(&self) -> &Type {
                &MAP_TYPE
            }

            fn cel_type() -> &'static Type {
                &MAP_TYPE
            }

            fn as_container(&self) -> Option<&dyn Container> {
                Some(self)
            }

            fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                let $this = self;
                Box::new($clone)
            }
        }

        impl $(<$life>)? Container for $type $(<$life>)? {
            fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
                match self.get(value) {
                    Ok(_) => Ok(true),
                    Err(ExecutionError::NoSuchKey(_)) => Ok(false),
                    Err(why) => Err(why),
                }
            }
        }
    };
}

lent_map!(Claims<'a>, clone = |this| *this);
lent_map!(Request<'a>, clone = |this| *this);
lent_map!(Headers<'a>, clone = |this| *this);
lent_map!(Client, clone = |this| *this);

impl Indexer for Claims<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.at(index)? {
            Some(value) => self.lend(value).map(CowVal::Owned),
            None => Err(absent(index)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.at(index)? {
            Some(value) => self.lend(value),
            None => Err(absent(index)),
        }
    }
}

impl<'a> Request<'a> {
    fn at(&self, index: &dyn Val) -> Result<Box<dyn Val + 'a>, ExecutionError> {
        let asked = &self.0;
        Ok(match text(index)? {
            "method" => Box::new(CelString::from(asked.method.as_str())),
            "host" => Box::new(CelString::from(asked.host)),
            "path" => Box::new(CelString::from(asked.path)),
            "headers" => Box::new(Headers(asked.headers)),
            _ => return Err(absent(index)),
        })
    }
}

impl<'a> Headers<'a> {
    /// All lines of a header, joined as RFC 9110 section 5.3 has it.
    fn at(&self, index: &dyn Val) -> Result<Box<dyn Val + 'a>, ExecutionError> {
        let name = text(index)?;
        let mut lines = self.0.get_all(name).iter();
        let first = lines.next().filter(|_| is_readable(name));
        let first = readable(first.ok_or_else(|| absent(index))?)?;
        let mut joined = None;
        for line in lines {
            let joined = joined.get_or_insert_with(|| first.to_owned());
            joined.push_str(", ");
            joined.push_str(readable(line)?);
        }
        Ok(match joined {
            Some(joined) => Box::new(CelString::from(joined)),
            None => Box::new(CelString::from(first)),
        })
    }
}

impl Client {
    fn at<'v>(self, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        match text(index)? {
            "ip" => Ok(Box::new(CelString::from(self.0.to_string()))),
            _ => Err(absent(index)),
        }
    }
}

macro_rules! indexed_by_at {
    ($type:ident $(<$life:lifetime>)?) => {
        impl Indexer for $type $(<$life>)? {
            fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
            where
                Self: 'v,
            {
                self.at(index).map(CowVal::Owned)
            }

            fn steal<'v>(
                self: Box<Self>,
                index: &dyn Val,
            ) -> Result<Box<dyn Val + 'v>, ExecutionError>
            where
                Self: 'v,
            {
                self.at(index)
            }
        }
    };
}

indexed_by_at!(Request<'_>);
indexed_by_at!(Headers<'_>);
indexed_by_at!(Client);

fn text(index: &dyn Val) -> Result<&str, ExecutionError> {
    index
        .downcast_ref::<CelString<'_>>()
        .map(CelString::inner)
        .ok_or_else(|| ExecutionError::UnexpectedType {
            got: index.get_type().name().to_owned(),
            want: "string".to_owned(),
        })
}

fn readable(line: &http::HeaderValue) -> Result<&str, ExecutionError> {
    line.to_str()
        .map_err(|_| ExecutionError::function_error("headers", "no text"))
}

fn absent(index: &dyn Val) -> ExecutionError {
    ExecutionError::no_such_key(text(index).unwrap_or_default())
}
