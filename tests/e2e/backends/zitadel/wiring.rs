//! The upstream project's own wiring matrix, W1 to W18, through the edge: every page, document and call arrives.

use http::Version;
use serde_json::json as value;

use super::start;
use crate::backends::over_every_protocol;
use crate::backends::servers::zitadel::{self as server, HOST};
use crate::backends::wire::{
    EMPTY_FRAME, JSON_FRAME, grpc, grpc_as, grpc_status, json, web, web_status,
};
use crate::support::client::{self, Via, call, get, post};
use crate::support::origin::{self, Speaks};

over_every_protocol! {
    /// W1 to W3.
    async fn every_way_leads_to_the_login(via) {
        let zitadel = start().await;
        for path in ["/", "/ui/v2/login/"] {
            let page = zitadel.site.visit(via, path).await;
            assert_eq!(page.status, 200, "{path}");
            assert!(page.header("content-type").starts_with("text/html"));
        }
        let page = zitadel.ask(via, get("/ui/v2/login")).await;
        assert_eq!(page.header("content-security-policy"), "default-src 'self'");
        assert_eq!(page.header("x-frame-options"), "deny");
        // Over http it would mean nothing.
        let hsts = if via.is_tls() { "max-age=63072000" } else { "" };
        assert_eq!(page.header("strict-transport-security"), hsts);
        let healthy = zitadel.ask(via, get("/ui/v2/login/healthy")).await;
        assert_eq!(healthy.status, 200);
        assert!(zitadel.login.saw().iter().all(|seen| seen.version == Version::HTTP_11));
    }
}

over_every_protocol! {
    /// W4 to W10, Z2, Z6, Z11, Z15.
    async fn pages_documents_and_rest_arrive(via) {
        let zitadel = start().await;
        let public = format!("{}://{HOST}", via.scheme());

        let console = zitadel.ask(via, get("/ui/console/")).await;
        assert_eq!(console.status, 200);
        assert!(console.header("content-type").starts_with("text/html"));
        let environment = zitadel.ask(via, get("/ui/console/assets/environment.json")).await;
        assert_eq!(environment.at("/api"), *public);
        assert_eq!(environment.at("/issuer"), *public);

        let discovery = zitadel.ask(via, get("/.well-known/openid-configuration")).await;
        assert_eq!(discovery.status, 200);
        assert_eq!(discovery.at("/issuer"), *public);
        for endpoint in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            let url = discovery.at(&format!("/{endpoint}"));
            assert!(url.as_str().unwrap().starts_with(&public), "{url}");
        }

        let keys = zitadel.ask(via, get("/oauth/v2/keys")).await;
        assert_eq!(keys.at("/keys/0/kid"), "271");
        assert_eq!(keys.header("cache-control"), "max-age=300, must-revalidate");

        let metadata = zitadel.ask(via, get("/saml/v2/metadata")).await;
        assert!(metadata.text().contains("EntityDescriptor"));

        for path in [
            "/management/v1/healthz",
            "/admin/v1/healthz",
            "/auth/v1/healthz",
            "/api/admin/v1/healthz",
        ] {
            let health = zitadel.ask(via, get(path)).await;
            assert_eq!((health.status.as_u16(), health.json()), (200, value!({})), "{path}");
        }
        let seen = zitadel.api_saw("/admin/v1/healthz");
        assert!(seen.iter().all(|seen| seen.target == "/admin/v1/healthz"));
    }
}

over_every_protocol! {
    /// W11, W12, Z4: ZITADEL answers gRPC-Web itself, byte for byte.
    async fn grpc_web_passes_through(via) {
        let zitadel = start().await;
        let path = "/zitadel.admin.v1.AdminService/Healthz";
        let proto = web("application/grpc-web+proto", path, EMPTY_FRAME);
        let answer = zitadel.ask(via, proto.header("origin", "https://app.example.com")).await;
        assert_eq!(web_status(&answer), Some(0));
        assert_eq!(answer.header("content-type"), "application/grpc-web+proto");
        let origins = answer.headers.get_all("access-control-allow-origin");
        assert_eq!(origins.iter().count(), 1, "a browser refuses two");

        let text = web("application/grpc-web+json", path, JSON_FRAME);
        assert_eq!(zitadel.ask(via, text).await.status, 200);
        assert!(zitadel.api_saw("Healthz").iter().all(|seen| seen.header("x-grpc-web") == "1"));
    }
}

over_every_protocol! {
    /// W15 to W17, Z5.
    async fn rest_and_connect_are_told_apart(via) {
        let zitadel = start().await;
        let rest = zitadel.ask(via, json("/v2/sessions", "{}")).await;
        assert_eq!((rest.status.as_u16(), rest.at("/code")), (401, value!(16)));

        let path = "/zitadel.session.v2.SessionService/ListSessions";
        let proto = post(path, "").header("content-type", "application/proto");
        for call in [json(path, "{}"), proto] {
            let connect = zitadel.ask(via, call).await;
            assert_eq!(connect.status, 401);
            assert_eq!(connect.at("/code"), "unauthenticated");
        }
    }
}

/// W13, W14, W18, Z3.
async fn native_grpc(via: Via) {
    let zitadel = start().await;
    let health = "/zitadel.admin.v1.AdminService/Healthz";
    let answer = zitadel.ask(via, grpc(health)).await;
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.body, EMPTY_FRAME);
    let seen = zitadel.api_saw("Healthz").remove(0);
    assert_eq!(seen.header("te"), "trailers");
    assert_eq!(seen.header("content-type"), "application/grpc+proto");

    let text = grpc_as("application/grpc+json", health, JSON_FRAME);
    assert_eq!(grpc_status(&zitadel.ask(via, text).await), Some(13));

    let list = "/zitadel.session.v2.SessionService/ListSessions";
    for (content_type, frame) in [
        ("application/grpc+proto", EMPTY_FRAME),
        ("application/grpc+json", JSON_FRAME),
    ] {
        let answer = zitadel.ask(via, grpc_as(content_type, list, frame)).await;
        assert_eq!(grpc_status(&answer), Some(16), "{content_type}");
    }
}

#[tokio::test]
async fn native_grpc_arrives_over_h2c() {
    native_grpc(Via::H2c).await;
}

#[tokio::test]
async fn native_grpc_arrives_over_tls() {
    native_grpc(Via::TlsH2).await;
}

#[tokio::test]
async fn an_http1_hop_to_the_api_would_show_as_404() {
    let api = origin::speaking(Speaks::Http)
        .otherwise(server::api)
        .run()
        .await;
    let mut direct = client::connect(api.address, Via::H1).await;
    let health = grpc("/zitadel.admin.v1.AdminService/Healthz").host(HOST);
    let answer = direct.send(health).await;
    assert_eq!(
        (answer.status.as_u16(), answer.at("/code")),
        (404, value!(5))
    );
}

over_every_protocol! {
    /// Next.js compares Origin with X-Forwarded-Host.
    async fn a_server_action_is_accepted(via) {
        let zitadel = start().await;
        let action = post("/ui/v2/login/password", "[]")
            .header("next-action", "7f")
            .header("origin", &format!("https://{HOST}"))
            .header("x-forwarded-host", "evil.invalid");
        let answer = zitadel.ask(via, action).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            answer.header("set-cookie"),
            "sessions=%5B%5D; Path=/; HttpOnly; Secure; SameSite=Lax"
        );
        let page = zitadel.ask(via, get("/ui/login/")).await;
        assert_eq!(
            page.header("set-cookie"),
            "__Host-zitadel.useragent=x; Path=/; HttpOnly; Secure; SameSite=Lax",
            "Z12: neither renamed nor widened"
        );
    }
}

#[tokio::test]
async fn a_provider_posts_back_from_its_own_site() {
    let zitadel = start().await;
    let callback = post("/idps/callback", "SAMLResponse=x")
        .header("origin", "https://accounts.example.org")
        .header("sec-fetch-site", "cross-site");
    let answer = zitadel.ask(Via::TlsH2, callback).await;
    assert_eq!(answer.status, 200);
    let origins = answer.headers.get_all("access-control-allow-origin");
    assert_eq!(
        origins.iter().count(),
        1,
        "the edge adds none to ZITADEL's own"
    );
}

over_every_protocol! {
    /// Over HTTP/2 a body in answer to HEAD would break the stream.
    async fn head_is_answered_without_a_body(via) {
        let zitadel = start().await;
        for (path, status) in [
            ("/", 302),
            ("/ui/v2/login/loginname", 200),
            ("/oauth/v2/keys", 404),
            ("/debug/metrics", 404),
            ("/x%00", 400),
        ] {
            let answer = zitadel.ask(via, call("HEAD", path)).await;
            assert_eq!(answer.status, status, "{path}");
            assert!(answer.body.is_empty(), "{path}");
        }
    }
}
