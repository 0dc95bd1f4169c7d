//! Rules in CEL, levels of authentication, `all`.

use serde_json::json;

use crate::matrix;
use crate::support::client::{Told, get, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Reply, Speaks};
use crate::support::pki;

const RULES: &str = r#"
    [[route]]
    path = "/when"
    auth = { any = ["main"], when = '''
        claims.groups.exists(g, g.startsWith("ops-")) &&
        (request.method == "GET" || client.ip.within("10.0.0.0/8"))''' }
    upstream = "api"
    [[route]]
    path = "/aal"
    auth = { any = ["main"], aal = ["2", "3"] }
    upstream = "api"
    [[route]]
    path = "/all"
    auth = { all = ["main", "browser"] }
    upstream = "api"
    [session.browser]
    cookie = "at"
    probe = { upstream = "api", path = "/v1/auth/session", timeout = "1s" }
"#;

async fn house(speaks: Speaks) -> (Issuer, Origin, Gateway) {
    let issuer = issuer::run().await;
    let origin = origin::speaking(speaks)
        .on("/v1/auth/session", |seen| match seen.header("cookie") {
            "at=alice" => Reply::json(&json!({ "user": { "user_id": "alice" } })),
            "at=bob" => Reply::json(&json!({ "user": { "user_id": "bob" } })),
            _ => Reply::empty(401),
        })
        .run()
        .await;
    let gateway = conf(RULES)
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    (issuer, origin, gateway)
}

matrix! {
    async fn a_rule_in_cel_decides(via, speaks) {
        let (issuer, origin, gateway) = house(speaks).await;
        let mut client = gateway.connect(via).await;
        for groups in [json!(["dev"]), json!("ops-eu"), json!(null), json!([]), json!([7])] {
            let token = issuer.token().claim("groups", groups.clone()).sign();
            let answer = client.send(get("/when").bearer(&token)).await;
            assert_eq!(answer.verdict(), refused(403, "forbidden"), "{groups}");
        }
        let ops = issuer.token().claim("groups", json!([7, "ops-eu"])).sign();
        let answer = client.send(post("/when", "").bearer(&ops)).await;
        assert_eq!(answer.verdict(), refused(403, "forbidden"), "not from this network");
        assert!(origin.saw_nothing());
        assert_eq!(client.send(get("/when").bearer(&ops)).await.status, 200);
        assert_eq!(origin.heads(), 1);
    }
}

#[tokio::test]
async fn a_lower_level_of_authentication_does_not_pass() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    for (aal, status) in [(json!(1), 403), (json!(2), 200), (json!("3"), 200)] {
        let token = issuer.token().claim("aal", aal.clone()).sign();
        let answer = gateway.ask(get("/aal").bearer(&token)).await;
        assert_eq!(answer.status, status, "{aal}");
    }
    let without = gateway
        .ask(get("/aal").bearer(&issuer.token().sign()))
        .await;
    assert_eq!(without.verdict(), refused(403, "forbidden"));
    assert_eq!(origin.heads(), 2);
}

/// Two credentials without a name may be of two users.
#[tokio::test]
async fn where_all_must_vouch_nobody_in_particular_does_not_pass() {
    let issuers = origin::http()
        .on("/introspect", |seen| {
            let is_named = seen.text().starts_with("token=named");
            let nobody = json!({ "active": true });
            let alice = json!({ "active": true, "sub": "alice" });
            Reply::json(if is_named { &alice } else { &nobody })
        })
        .run()
        .await;
    let secret = pki::SHARED.file("all-secret", "a secret of the gateway");
    let mut text =
        "[[route]]\npath = \"/\"\nauth = { all = [\"one\", \"other\"] }\nupstream = \"api\"\n"
            .to_owned();
    for (name, header) in [("one", ""), ("other", "header = \"x-token\"")] {
        text.push_str(&format!(
            r#"
            [issuer.{name}]
            url = "https://{name}.example"
            audiences = []
            {header}
            introspection = {{ url = "http://{}/introspect", tokens = "all", client_id = "edge", client_secret = {{ file = {secret:?} }} }}
            "#,
            issuers.address
        ));
    }
    let api = origin::http().run().await;
    let gateway = conf(&text).upstream("api", &api).run().await;
    let ask = async |one: &str, other: &str| {
        let call = get("/").bearer(one).header("x-token", other);
        gateway.ask(call).await.verdict()
    };
    for (one, other) in [("a", "b"), ("named", "b"), ("a", "named")] {
        let verdict = ask(one, other).await;
        assert_eq!(
            verdict,
            refused(400, "credential_ambiguous"),
            "{one} {other}"
        );
    }
    assert!(api.saw_nothing());
    assert_eq!(ask("named-1", "named-2").await.0, 200);
}

matrix! {
    async fn all_must_vouch_and_for_the_same_user(via, speaks) {
        let (issuer, origin, gateway) = house(speaks).await;
        let mut client = gateway.connect(via).await;
        let token = issuer.token().claim("sub", "alice").sign();
        let expired = issuer.token().claim("sub", "alice").expired().sign();
        let call = || get("/all");
        for (call, expected) in [
            (call(), refused(401, "credential_missing")),
            (call().bearer(&token), refused(401, "credential_missing")),
            (call().header("cookie", "at=alice"), refused(401, "credential_missing")),
            (call().bearer(&expired).header("cookie", "at=alice"), refused(401, "token_expired")),
            (call().bearer(&token).header("cookie", "at=none"), refused(401, "session_invalid")),
            (call().bearer(&token).header("cookie", "at=bob"), refused(400, "credential_ambiguous")),
        ] {
            assert_eq!(client.send(call).await.verdict(), expected);
        }
        assert!(origin.saw().iter().all(|seen| seen.target == "/v1/auth/session"));
        let answer = client.send(call().bearer(&token).header("cookie", "at=alice")).await;
        assert_eq!(answer.status, 200);
        let seen = origin.last();
        assert_eq!((seen.header("x-auth-user"), seen.header("x-auth-method")), ("alice", "jwt"));
    }
}
