//! What must not arrive: closed paths in every spelling, and every header that a client invents.

use super::start;
use crate::backends::over_every_protocol;
use crate::backends::servers::zitadel::HOST;
use crate::backends::wire::{EMPTY_FRAME, FORGED, forge, grpc, grpc_status, json, web, web_status};
use crate::support::client::{self, Via, call, get};

over_every_protocol! {
    /// Z8, Z14.
    async fn closed_paths_are_closed_in_every_spelling(via) {
        let zitadel = start().await;
        for path in [
            "/debug/metrics",
            "/debug/ready",
            "/debug",
            "/debugging",
            "/debug/",
            "/debug;x/metrics",
            "/debug%2Fmetrics",
            "/%64ebug/metrics",
            "/%64%65%62%75%67/metrics",
            "/%2564ebug/metrics",
            "//debug/metrics",
            "/./debug//metrics",
            "/x/../debug/metrics",
            "/x/%2e%2E/debug/metrics",
            "/x/..;/debug/metrics",
            "/ui/..%2fdebug/metrics",
            "/api/debug/metrics",
            "/api/%64ebug/metrics",
            "/api//debug/metrics",
            "/api/../debug/metrics",
            "/api/x/../debug/metrics",
            "/system/v1/healthz",
            "/system//v1/instances",
            "/api/system/v1/healthz",
        ] {
            for method in ["GET", "POST", "HEAD", "OPTIONS"] {
                let answer = zitadel.ask(via, call(method, &format!("{path}?mark"))).await;
                let status = answer.status.as_u16();
                assert!(matches!(status, 400 | 404), "{method} {path}: {status}");
            }
        }
        assert!(zitadel.api_saw("mark").is_empty(), "{:?}", zitadel.api_saw("mark"));
    }
}

over_every_protocol! {
    async fn closed_services_are_closed_in_every_dialect(via) {
        let zitadel = start().await;
        for path in [
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/api/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc%2Ereflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health/Check",
            "/zitadel.system.v1.SystemService/ListInstances",
        ] {
            let native = zitadel.ask(via, grpc(path)).await;
            assert_eq!(grpc_status(&native), Some(12), "{path}");
            let browser = zitadel.ask(via, web("application/grpc-web+proto", path, EMPTY_FRAME)).await;
            assert_eq!(web_status(&browser), Some(12), "{path}");
            let connect = zitadel.ask(via, json(path, "{}")).await;
            assert_eq!(connect.status, 404, "{path}");
        }
        assert!(zitadel.api_saw("reflection").is_empty());
        assert!(zitadel.api_saw("Health/").is_empty());
        assert!(zitadel.api_saw("SystemService").is_empty());
    }
}

over_every_protocol! {
    /// L5, rule 0.1: the documents that mails, consoles and relying parties are built from.
    async fn forged_headers_leave_every_document_as_it_is(via) {
        let zitadel = start().await;
        for path in ["/.well-known/openid-configuration", "/ui/console/assets/environment.json"] {
            let clean = zitadel.ask(via, get(path)).await;
            let forged = zitadel.ask(via, forge(get(path))).await;
            assert_eq!(clean.status, 200);
            assert_eq!(clean.text(), forged.text());
            assert!(clean.text().contains(HOST));
        }
        for seen in zitadel.api_saw("/.well-known/") {
            assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
            assert_eq!(seen.header("x-forwarded-host"), HOST);
            assert_eq!(seen.header("x-forwarded-proto"), via.scheme());
            assert_eq!(seen.authority, HOST);
            for (name, forged) in FORGED {
                assert!(!seen.all(name).contains(forged), "{name} got through: {seen:#?}");
            }
        }
    }
}

#[tokio::test]
async fn one_forged_header_would_be_enough_without_the_edge() {
    let zitadel = start().await;
    for (name, value) in FORGED.iter().filter(|(name, _)| {
        [
            "x-forwarded-proto",
            "x-zitadel-public-host",
            "x-zitadel-instance-host",
            "forwarded",
        ]
        .contains(name)
    }) {
        let mut direct = client::connect(zitadel.api.address, Via::H2c).await;
        let discovery = get("/.well-known/openid-configuration").host(HOST);
        let poisoned = direct.send(discovery.header(name, value)).await;
        let issuer = poisoned.at("/issuer");
        assert_ne!(issuer, *format!("http://{HOST}"), "{name}");
    }
}

#[tokio::test]
async fn headers_that_clients_may_choose_arrive() {
    let zitadel = start().await;
    let kept = [
        ("x-zitadel-orgid", "271"),
        ("x-zitadel-login-client", "272"),
        ("x-user-agent", "grpc-web-javascript/0.1"),
        ("grpc-timeout", "1S"),
        ("connect-protocol-version", "1"),
        ("authorization", "Bearer opaque"),
        ("dpop", "proof"),
        ("cookie", "__Host-zitadel.useragent=x"),
    ];
    let call = kept
        .iter()
        .fold(json("/v2/users", "{}"), |call, (name, value)| {
            call.header(name, value)
        });
    zitadel.ask(Via::TlsH2, call).await;
    let seen = zitadel.api_saw("/v2/users").remove(0);
    for (name, value) in kept {
        assert_eq!(seen.header(name), value, "{name}");
    }
}
