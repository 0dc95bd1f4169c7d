//! `conf/examples/zitadel.toml`: the file's own cases and checks; then what arrives (`wiring`), what does not
//! (`closed`), and how much of it (`bounds`).

mod bounds;
mod closed;
mod wiring;

use super::servers::zitadel::{self as server, HOST};
use super::{Site, check, fitted};
use crate::support::client::{Answer, Call, Via};
use crate::support::gateway;
use crate::support::origin::{self, Origin, Seen};

const EXAMPLE: &str = include_str!("../../../../conf/examples/zitadel.toml");

struct Zitadel {
    site: Site,
    api: Origin,
    login: Origin,
}

fn conf(api: &Origin, login: &Origin) -> gateway::Builder {
    let endpoints = [
        ("h2c://zitadel:8080", api.endpoint()),
        ("http://zitadel-login:3000", login.endpoint()),
    ];
    fitted(EXAMPLE, &endpoints)
}

async fn start() -> Zitadel {
    let api = origin::h2c().otherwise(server::api).run().await;
    let login = origin::http().otherwise(server::login).run().await;
    let site = Site::open(HOST, conf(&api, &login)).await;
    Zitadel { site, api, login }
}

impl Zitadel {
    async fn ask(&self, via: Via, call: Call) -> Answer {
        self.site.ask(via, call).await
    }

    /// The requests at the API server whose target holds `mark`.
    fn api_saw(&self, mark: &str) -> Vec<Seen> {
        let seen = self.api.saw().into_iter();
        seen.filter(|seen| seen.target.contains(mark)).collect()
    }
}

#[tokio::test]
async fn the_files_own_cases_pass() {
    let api = origin::h2c().run().await;
    let login = origin::http().run().await;
    check(&conf(&api, &login));
}

#[tokio::test]
async fn the_files_health_checks_find_the_servers() {
    let zitadel = start().await;
    zitadel.api.reached(1).await;
    zitadel.login.reached(1).await;
    zitadel.site.healthy("api").await;
    zitadel.site.healthy("login").await;
    let [api, login] = [&zitadel.api, &zitadel.login].map(|origin| origin.saw().remove(0));
    assert_eq!((&*api.target, &*api.authority), ("/debug/ready", HOST));
    assert_eq!(login.target, "/ui/v2/login/healthy");
    assert_eq!(login.authority, HOST);
}
