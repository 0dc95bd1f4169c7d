//! Pages of other sites, and the session cookie that the browser sends along for them.

use serde_json::json;

use crate::matrix;
use crate::support::client::{Told, Via, get, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Reply, Speaks};
use crate::support::pki;

const ROUTES: &str = r#"
    [[route]]
    path = "/guarded"
    auth = { any = ["main", "browser"] }
    cors = { origins = ["https://spa.example.com"], credentials = true }
    csrf = { origins = ["https://idp.example.org"] }
    upstream = "api"
    [[route]]
    path = "/callback"
    auth = { any = ["browser"] }
    csrf = "off"
    upstream = "api"
    [session.browser]
    cookie = "at"
    probe = { upstream = "api", path = "/v1/auth/session", timeout = "1s" }
    cache = "60s"
"#;

async fn house(speaks: Speaks) -> (Issuer, Origin, Gateway) {
    let issuer = issuer::run().await;
    let origin = origin::speaking(speaks)
        .on("/v1/auth/session", |_| {
            Reply::json(&json!({ "user": { "user_id": "alice" } }))
        })
        .run()
        .await;
    let gateway = conf(ROUTES)
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    (issuer, origin, gateway)
}

fn forwarded(origin: &Origin) -> usize {
    let saw = origin.saw();
    saw.iter()
        .filter(|seen| seen.target != "/v1/auth/session")
        .count()
}

matrix! {
    async fn a_page_of_another_site_cannot_act_for_its_visitor(via, speaks) {
        let (_issuer, origin, gateway) = house(speaks).await;
        let mut client = gateway.connect(via).await;
        let call = || post("/guarded", "x=1").header("cookie", "at=good");
        for fields in [
            &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
        ] {
            let call = fields.iter().fold(call(), |call, (name, value)| call.header(name, value));
            let answer = client.send(call).await;
            assert_eq!(answer.verdict(), refused(403, "csrf_refused"), "{fields:?}");
        }
        assert_eq!(forwarded(&origin), 0);
        let own = format!("{}://{}", via.scheme(), pki::HOST);
        for fields in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", own.as_str())],
            &[("sec-fetch-site", "same-site"), ("origin", "https://spa.example.com")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://idp.example.org")],
        ] {
            let call = fields.iter().fold(call(), |call, (name, value)| call.header(name, value));
            assert_eq!(client.send(call).await.status, 200, "{fields:?}");
        }
        assert_eq!(forwarded(&origin), 6);
    }
}

#[tokio::test]
async fn reading_bearers_and_routes_that_say_so_are_not_guarded() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    let foreign = |call: crate::support::client::Call| {
        call.header("sec-fetch-site", "cross-site")
            .header("origin", "https://evil.example")
    };
    let read = foreign(get("/guarded").header("cookie", "at=good"));
    assert_eq!(gateway.ask(read).await.status, 200);
    let bearer = foreign(post("/guarded", "").bearer(&issuer.token().sign()));
    assert_eq!(gateway.ask(bearer).await.status, 200);
    let callback = foreign(post("/callback", "").header("cookie", "at=good"));
    assert_eq!(gateway.ask(callback).await.status, 200);
    assert_eq!(forwarded(&origin), 3);
}

#[tokio::test]
async fn grpc_web_callers_learn_it_as_permission_denied() {
    let (_issuer, origin, gateway) = house(Speaks::Http).await;
    let call = post("/guarded", "")
        .header("content-type", "application/grpc-web+proto")
        .header("cookie", "at=good")
        .header("origin", "https://evil.example");
    let answer = gateway.send(Via::H1, call).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("grpc-status: 7"));
    assert_eq!(forwarded(&origin), 0);
}
