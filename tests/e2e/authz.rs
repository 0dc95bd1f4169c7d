//! Who may: roles, scopes, claims, networks.

use serde_json::json;

use crate::matrix;
use crate::support::client::{Told, Via, get, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::issuer::{self, Issuer};
use crate::support::origin::{self, Origin, Speaks};

const RULES: &str = r#"
    [[route]]
    path = "/roles"
    auth = { any = ["main"], roles = ["writer", "admin"] }
    upstream = "api"
    [[route]]
    path = "/scopes"
    auth = { any = ["main"], scopes = ["orders:write"] }
    upstream = "api"
    [[route]]
    path = "/claims"
    auth = { any = ["main"], claims = { tenant = ["a", "b"], "team.name" = "blue" } }
    upstream = "api"
    [[route]]
    path = "/inside"
    auth = "none"
    from = ["10.0.0.0/8", "2001:db8::/32"]
    upstream = "api"
    [[route]]
    path = "/loopback"
    auth = "none"
    from = ["127.0.0.0/8"]
    upstream = "api"
"#;

async fn house(speaks: Speaks) -> (Issuer, Origin, Gateway) {
    let issuer = issuer::run().await;
    let origin = origin::speaking(speaks).run().await;
    let gateway = conf(RULES)
        .issuer(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    (issuer, origin, gateway)
}

matrix! {
    async fn a_role_is_demanded(via, speaks) {
        let (issuer, origin, gateway) = house(speaks).await;
        let mut client = gateway.connect(via).await;
        let reader = issuer.token().claim("roles", json!(["reader"])).sign();
        let answer = client.send(get("/roles").bearer(&reader)).await;
        assert_eq!(answer.verdict(), refused(403, "forbidden"));
        assert!(origin.saw_nothing());
        let writer = issuer.token().claim("roles", json!(["reader", "writer"])).sign();
        assert_eq!(client.send(get("/roles").bearer(&writer)).await.status, 200);
    }
}

#[tokio::test]
async fn roles_come_in_every_shape_and_are_compared_whole() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    for (roles, status) in [
        (json!("writer"), 200),
        (json!({ "writer": { "1": "org" } }), 200),
        (json!(["writer"]), 200),
        (json!("Writer"), 403),
        (json!("writers"), 403),
        (json!([["writer"]]), 403),
        (json!([]), 403),
        (json!(null), 403),
        (json!({ "reader": "writer" }), 403),
    ] {
        let token = issuer.token().claim("roles", roles.clone()).sign();
        assert_eq!(
            gateway.ask(get("/roles").bearer(&token)).await.status,
            status,
            "{roles}"
        );
    }
    assert_eq!(origin.heads(), 3);
}

#[tokio::test]
async fn a_lacking_scope_is_named() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    for (scope, status) in [
        ("orders:write", 200),
        ("a orders:write b", 200),
        ("orders:writer", 403),
        ("", 403),
    ] {
        let token = issuer.token().claim("scope", scope).sign();
        let answer = gateway.ask(get("/scopes").bearer(&token)).await;
        assert_eq!(answer.status, status, "{scope}");
        if status == 403 {
            assert_eq!(answer.code(), "insufficient_scope");
            let challenge = answer.header("www-authenticate");
            assert!(
                challenge.contains("error=\"insufficient_scope\"")
                    && challenge.contains("orders:write"),
                "{challenge}"
            );
        }
    }
    assert_eq!(origin.heads(), 2);
}

#[tokio::test]
async fn every_claim_must_have_one_of_its_values() {
    let (issuer, origin, gateway) = house(Speaks::Http).await;
    for (tenant, team, status) in [
        (json!("a"), json!({ "name": "blue" }), 200),
        (json!(["x", "b"]), json!({ "name": "blue" }), 200),
        (json!("c"), json!({ "name": "blue" }), 403),
        (json!("a"), json!({ "name": "red" }), 403),
        (json!("a"), json!("blue"), 403),
        (json!(null), json!({ "name": "blue" }), 403),
    ] {
        let token = issuer
            .token()
            .claim("tenant", tenant.clone())
            .claim("team", team.clone())
            .sign();
        let answer = gateway.ask(get("/claims").bearer(&token)).await;
        assert_eq!(answer.status, status, "{tenant} {team}");
        if status == 403 {
            assert_eq!(answer.code(), "forbidden");
        }
    }
    assert_eq!(origin.heads(), 2);
}

#[tokio::test]
async fn networks_are_those_of_the_client_and_not_of_its_words() {
    let (_issuer, origin, gateway) = house(Speaks::Http).await;
    for lie in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        let answer = gateway.ask(get("/inside").header(lie, "10.1.2.3")).await;
        assert_eq!(answer.verdict(), refused(403, "network_forbidden"), "{lie}");
    }
    assert!(origin.saw_nothing());
    assert_eq!(gateway.ask(get("/loopback")).await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_networks_are_those_of_the_client() {
    let origin = origin::http().run().await;
    let issuer = issuer::run().await;
    let gateway = conf(RULES)
        .issuer(&issuer)
        .upstream("api", &origin)
        .listen("trusted_proxies = [\"127.0.0.0/8\"]")
        .run()
        .await;
    for (client, path, status) in [
        ("10.1.2.3", "/inside", 200),
        ("2001:db8::1", "/inside", 200),
        ("11.1.2.3", "/inside", 403),
        ("10.1.2.3, 11.1.2.3", "/inside", 403),
        ("10.1.2.3", "/loopback", 403),
    ] {
        let answer = gateway
            .ask(get(path).header("x-forwarded-for", client))
            .await;
        assert_eq!(answer.status, status, "{client} {path}");
    }
}

#[tokio::test]
async fn grpc_callers_learn_it_as_permission_denied() {
    let (issuer, origin, gateway) = house(Speaks::H2c).await;
    let call = post("/roles", "")
        .header("content-type", "application/grpc")
        .bearer(&issuer.token().sign());
    let answer = gateway.send(Via::H2c, call).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "7")
    );
    assert!(origin.saw_nothing());
}
