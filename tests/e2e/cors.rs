//! Cross-origin rules: preflights answered here, the backend's own words replaced.

use crate::matrix;
use crate::support::client::{Call, Told, call, get, refused};
use crate::support::gateway::{Builder, conf};
use crate::support::issuer;
use crate::support::origin::{self, Origin, Reply};

const APP: &str = "https://app.example";

fn guarded(origin: &Origin) -> Builder {
    conf(r#"
        [[route]]
        name = "api"
        path = "/api"
        methods = ["GET", "POST"]
        auth = { any = ["main"] }
        upstream = "api"
        cors = { origins = ["https://app.example", "http://localhost:3000"], credentials = true, expose = ["x-total"], max_age = "5m" }
        [[route]]
        name = "open"
        path = "/open"
        auth = "none"
        upstream = "api"
        cors = { origins = ["*"] }
        [[route]]
        name = "theirs"
        path = "/theirs"
        auth = "none"
        upstream = "api"
    "#)
    .upstream("api", origin)
}

fn preflight(path: &str, origin: &str, method: &str) -> Call {
    call("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", method)
}

fn lax() -> Reply {
    Reply::text("hello")
        .header("access-control-allow-origin", "*")
        .header("access-control-allow-credentials", "true")
        .header("access-control-allow-private-network", "true")
}

matrix! {
    async fn preflights_are_answered_before_authentication(via, speaks) {
        let issuer = issuer::run().await;
        let origin = origin::speaking(speaks).reply(lax()).run().await;
        let gateway = guarded(&origin).issuer(&issuer).run().await;
        let mut client = gateway.connect(via).await;

        let answer = client.send(preflight("/api", APP, "POST")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        assert_eq!(answer.header("access-control-max-age"), "300");
        assert!(answer.header("access-control-allow-headers").contains("authorization"));

        for stranger in ["https://evil.example", "https://app.example.evil", "http://app.example", "null", "https://app.example:8443"] {
            let answer = client.send(preflight("/api", stranger, "POST")).await;
            assert_eq!(answer.verdict(), refused(403, "cors_refused"), "{stranger}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
        assert!(origin.saw_nothing());
    }
}

matrix! {
    async fn answers_say_what_the_route_says(via, speaks) {
        let issuer = issuer::run().await;
        let origin = origin::speaking(speaks).reply(lax()).run().await;
        let gateway = guarded(&origin).issuer(&issuer).run().await;
        gateway.ready().await;
        let mut client = gateway.connect(via).await;
        let token = issuer.token().sign();

        let answer = client.send(get("/api").bearer(&token).header("origin", APP)).await;
        assert_eq!(answer.status, 200);
        let told: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(told, [APP]);
        assert_eq!(answer.header("access-control-expose-headers"), "x-total");
        assert!(!answer.headers.contains_key("access-control-allow-private-network"));
        assert!(answer.header("vary").to_lowercase().contains("origin"));

        let answer = client.send(get("/api").bearer(&token).header("origin", "https://evil.example")).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));

        // A page may read why it was refused.
        let answer = client.send(get("/api").header("origin", APP)).await;
        assert_eq!(answer.verdict(), refused(401, "credential_missing"));
        assert_eq!(answer.header("access-control-allow-origin"), APP);
    }
}

/// What a browser and a cache between must see of preflights and answers, by the Fetch standard.
const STRICT: &str = r#"
    [[route]]
    path = "/wide"
    auth = "none"
    upstream = "api"
    [route.cors]
    origins = ["https://*.apps.example:8443", "https://exact.example"]
    methods = ["PUT"]
    headers = ["x-a"]
    expose = ["x-b"]
    grpc_web = true
    private_network = true
"#;

matrix! {
    async fn patterns_private_networks_and_grpc_web(via, speaks) {
        let origin = origin::speaking(speaks).reply(lax().header("vary", "Accept")).run().await;
        let gateway = conf(STRICT).upstream("api", &origin).run().await;
        let mut client = gateway.connect(via).await;
        let page = "https://one.apps.example:8443";
        let asked = preflight("/wide", page, "PUT").header("access-control-request-private-network", "true");
        let answer = client.send(asked).await;
        assert_eq!(answer.status.as_u16(), 204);
        assert_eq!(answer.header("access-control-allow-origin"), page);
        assert_eq!(answer.header("access-control-allow-private-network"), "true");
        assert_eq!(answer.header("access-control-allow-methods"), "PUT, POST");
        let headers = answer.header("access-control-allow-headers");
        assert!(headers.starts_with("x-a, ") && headers.contains("x-grpc-web"), "{headers}");
        let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap()).collect();
        let vary = vary.join(", ").to_lowercase();
        for field in ["origin", "access-control-request-method", "access-control-request-headers", "access-control-request-private-network"] {
            assert!(vary.split(", ").any(|one| one == field), "{vary}");
        }
        // Not asked for, not said.
        let answer = client.send(preflight("/wide", page, "PUT")).await;
        assert!(!answer.headers.contains_key("access-control-allow-private-network"));
        for stranger in ["https://two.one.apps.example:8443", "https://apps.example:8443", "https://one.apps.example", "https://evil.example/.apps.example:8443"] {
            let answer = client.send(preflight("/wide", stranger, "PUT")).await;
            assert_eq!(answer.verdict(), refused(403, "cors_refused"), "{stranger}");
        }
        let answer = client.send(get("/wide").header("origin", page)).await;
        let told: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(told, [page]);
        assert_eq!(answer.header("access-control-expose-headers"), "x-b, grpc-status, grpc-message, grpc-status-details-bin, x-request-id");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Accept", "Origin"]);
    }
}

#[test]
fn what_would_let_strangers_act_for_visitors_is_found_at_load() {
    for (origins, word) in [
        ("\"*\"", "lets every site act for its visitors"),
        ("\"null\"", "every sandboxed frame has it"),
        ("\"https://*.example.com\"", "lets every host below act"),
    ] {
        let conf = conf(&format!(
            "[[route]]\nauth = \"none\"\nrespond = {{ status = 200 }}\n\
             cors = {{ origins = [{origins}], credentials = true }}"
        ));
        let why = conf.try_run().unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
    }
}

#[tokio::test]
async fn any_origin_means_no_credentials() {
    let issuer = issuer::run().await;
    let origin = origin::http().reply(lax()).run().await;
    let gateway = guarded(&origin).issuer(&issuer).run().await;
    let answer = gateway
        .ask(get("/open").header("origin", "https://anybody.example"))
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        !answer
            .headers
            .contains_key("access-control-allow-credentials")
    );
}

#[tokio::test]
async fn without_cors_the_backends_word_stands() {
    let issuer = issuer::run().await;
    let origin = origin::http().reply(lax()).run().await;
    let gateway = guarded(&origin).issuer(&issuer).run().await;
    let answer = gateway
        .ask(preflight("/theirs", "https://x.example", "PUT"))
        .await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("access-control-allow-origin")
        ),
        (200, "*")
    );
    assert_eq!(origin.only().method, "OPTIONS");
}

#[tokio::test]
async fn a_preflight_for_a_method_that_no_route_has_is_405() {
    let issuer = issuer::run().await;
    let origin = origin::http().run().await;
    let gateway = guarded(&origin).issuer(&issuer).run().await;
    let answer = gateway.ask(preflight("/api", APP, "DELETE")).await;
    assert_eq!(answer.verdict(), refused(405, "method_refused"));
    assert_eq!(
        gateway
            .ask(preflight("/nowhere", APP, "GET"))
            .await
            .verdict(),
        refused(404, "no_route")
    );
    assert!(origin.saw_nothing());
}
