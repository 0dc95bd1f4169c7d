//! Methods: a set. Case-sensitive; a method beyond the usual ones passes only where it is listed.

use std::fmt;

use http::Method;

/// The methods that a route takes.
#[derive(Clone, Debug)]
pub(in crate::route) struct MethodSet {
    usual: u8,
    others: Box<[Method]>,
    /// Every method: closed routes must not be walked around.
    every: bool,
    listed: bool,
}

impl MethodSet {
    /// The methods of a route that lists none: RFC 9110 and PATCH, without CONNECT and TRACE.
    pub(in crate::route) fn usual() -> Self {
        Self {
            usual: u8::MAX >> 1,
            others: Box::default(),
            every: false,
            listed: false,
        }
    }

    /// The methods of a closed route that lists none: all of them.
    pub(in crate::route) fn every() -> Self {
        Self {
            every: true,
            ..Self::usual()
        }
    }

    /// These methods.
    pub(in crate::route) fn listed(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut usual = 0;
        let mut others = Vec::new();
        for method in methods {
            match bit(&method) {
                Some(bit) => usual |= bit,
                None => others.push(method),
            }
        }
        others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Self {
            usual,
            others: others.into(),
            every: false,
            listed: true,
        }
    }

    pub(in crate::route) fn contains(&self, method: &Method) -> bool {
        match bit(method) {
            Some(bit) => self.usual & bit != 0,
            None => self.every || self.others.contains(method),
        }
    }

    pub(in crate::route) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(in crate::route) fn cover(&self, other: &Self) -> bool {
        let others =
            self.every || (!other.every && other.others.iter().all(|one| self.contains(one)));
        self.usual & other.usual == other.usual && others
    }

    pub(in crate::route) fn overlap(&self, other: &Self) -> bool {
        self.usual & other.usual != 0
            || self.every && other.every
            || self.others.iter().any(|one| other.contains(one))
            || other.others.iter().any(|one| self.contains(one))
    }
}

/// Reads a method of the configuration; the error says what is wrong with it.
pub(in crate::route) fn parse(text: &str) -> Result<Method, String> {
    let method =
        Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no method"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(format!("{text} is never served"));
    }
    let upper = text.to_ascii_uppercase();
    if upper != text && USUAL.iter().any(|usual| usual.as_str() == upper) {
        return Err(format!("methods are case-sensitive: write `{upper}`"));
    }
    Ok(method)
}

const USUAL: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

fn bit(method: &Method) -> Option<u8> {
    Some(match *method {
        Method::GET => 1,
        Method::HEAD => 1 << 1,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::PATCH => 1 << 4,
        Method::DELETE => 1 << 5,
        Method::OPTIONS => 1 << 6,
        _ => return None,
    })
}

impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.listed {
            return f.write_str("*");
        }
        let names = USUAL.iter().filter(|method| self.contains(method));
        for (position, method) in names.chain(&self.others).enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(text: &str) -> Method {
        Method::from_bytes(text.as_bytes()).unwrap()
    }

    fn listed(text: &str) -> MethodSet {
        MethodSet::listed(text.split(',').map(method))
    }

    #[test]
    fn only_usual_methods_pass_without_a_list() {
        for text in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert!(MethodSet::usual().contains(&method(text)), "{text}");
        }
        for text in ["get", "PROPFIND", "TRACE", "CONNECT", "Get"] {
            assert!(!MethodSet::usual().contains(&method(text)), "{text}");
            assert!(MethodSet::every().contains(&method(text)), "{text}");
        }
    }

    #[test]
    fn a_list_means_what_it_says() {
        let set = listed("GET,PROPFIND");
        assert!(set.contains(&Method::GET) && set.contains(&method("PROPFIND")));
        assert!(!set.contains(&Method::HEAD) && !set.contains(&method("propfind")));
        assert_eq!(set.to_string(), "GET,PROPFIND");
    }

    #[test]
    fn sets_know_what_they_share() {
        assert!(
            MethodSet::usual().cover(&listed("GET")) && !listed("GET").cover(&MethodSet::usual())
        );
        assert!(
            MethodSet::every().cover(&MethodSet::usual())
                && !MethodSet::usual().cover(&MethodSet::every())
        );
        assert!(!MethodSet::usual().cover(&listed("GET,PROPFIND")));
        assert!(
            listed("GET,PROPFIND").overlap(&listed("PROPFIND"))
                && !listed("GET").overlap(&listed("PUT"))
        );
        assert!(
            MethodSet::every().overlap(&listed("PROPFIND"))
                && !MethodSet::usual().overlap(&listed("PROPFIND"))
        );
    }

    #[test]
    fn methods_that_cannot_be_meant_are_refused() {
        for text in ["get", "CONNECT", "TRACE", "", "A B", "Post"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("purge"), Ok(method("purge")));
    }
}
