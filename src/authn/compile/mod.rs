//! From the configuration to issuers and sessions that can judge. Everything that is missing, unreadable or weak is a
//! problem here, at start or reload, and never a surprise at the first request.
//!
//! `issuer` and `keys` make issuers, `session` sessions, `route` what a route asks, `ending` what a route ends.

mod ending;
mod issuer;
mod keys;
mod route;
mod session;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use self::issuer::IssuerPlace;
use self::session::Sources;
use super::jwks::shelf::check_folder;
use super::jwt::verify::self_test;
use super::{Authorities, Issuer, Session};
use crate::config::{Config, KeyPath, Problems};
use crate::upstream::Cluster;

impl Authorities {
    /// Compiles all issuers and sessions. What `previous` holds under the same name and configuration is taken over as
    /// it is; an issuer that changed keeps its keys where their source did not.
    #[must_use]
    pub fn compile(
        config: &Config,
        clusters: &BTreeMap<String, Arc<Cluster>>,
        previous: Option<&Self>,
        problems: &mut Problems,
    ) -> Self {
        let mut authorities = Self {
            relay: previous.and_then(|previous| previous.relay.clone()),
            vigils: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.vigils)),
            ..Self::default()
        };
        let state_dir = state_dir(config, problems);
        if let Err(why) = self_test() {
            problems.push(&KeyPath::root().key("issuer"), why.to_string());
        }
        for (name, issuer) in &config.issuer {
            let path = KeyPath::root().key("issuer").key(name);
            let earlier = previous.and_then(|previous| previous.issuers.get(name));
            let place = IssuerPlace {
                name,
                path: &path,
                state_dir,
                previous: earlier,
            };
            if let Some(issuer) = Issuer::compile(issuer, &place, problems) {
                authorities.issuers.insert(name.clone(), issuer);
            } else {
                authorities.broken.insert(name.clone());
            }
        }
        for (name, session) in &config.session {
            let path = KeyPath::root().key("session").key(name);
            if config.issuer.contains_key(name) {
                problems.push(
                    &path,
                    "an issuer has the same name, so that routes could mean either",
                );
            }
            let earlier = previous.and_then(|previous| previous.sessions.get(name));
            let sources = Sources {
                config,
                clusters,
                authorities: &authorities,
            };
            let compiled = Session::compile(name, session, &path, &sources, earlier, problems);
            if let Some(session) = compiled {
                authorities.sessions.insert(name.clone(), session);
            } else {
                authorities.broken.insert(name.clone());
            }
        }
        authorities
    }

    /// Complains of a name that nobody has.
    fn complain_of(&self, name: &str, path: &KeyPath, problems: &mut Problems) {
        // One that is written but did not compile has been complained about already.
        if !self.broken.contains(name) {
            let known = self.issuers.keys().chain(self.sessions.keys());
            problems.unknown_name(path, "issuer or session", name, known.map(String::as_str));
        }
    }
}

/// The folder for what should survive a restart, if it can be used.
fn state_dir<'c>(config: &'c Config, problems: &mut Problems) -> Option<&'c Path> {
    let folder = config.state_dir.as_deref()?;
    match check_folder(folder) {
        Ok(()) => Some(folder),
        Err(why) => {
            let help = format!(
                "install -d -m 0700 -o USER {}, USER being the one that the gateway runs as",
                folder.display()
            );
            problems.push_with_help(&KeyPath::root().key("state_dir"), why, Some(help));
            None
        }
    }
}
