//! Paths on their way to the backend: prefixes stripped, regexes applied, and closed routes that stay closed.

use crate::matrix;
use crate::support::client::{Told, Via, get, refused};
use crate::support::gateway::{Builder, conf};
use crate::support::origin::{self, Origin};

fn rewriting(origin: &Origin) -> Builder {
    conf(
        r#"
        [[route]]
        path = "/pub/*"
        auth = "none"
        upstream = "api"
        strip_prefix = "/pub"
        [[route]]
        path = "/r/*"
        auth = "none"
        upstream = "api"
        rewrite = { from = "^/r/(.*)$", to = "/v2/$1" }
        [[route]]
        path = "/any/*"
        auth = "none"
        upstream = "api"
        strip_prefix = "/any"
        encoded_slash = "keep"
        [[route]]
        path = "/up/*"
        auth = "none"
        upstream = "api"
        rewrite = { from = "^/up/(.*)$", to = "/x/../$1" }
        [[route]]
        path = "/internal/*"
        auth = "deny"
    "#,
    )
    .upstream("api", origin)
}

matrix! {
    async fn the_backend_sees_the_new_path(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = rewriting(&origin).run().await;
        let mut client = gateway.connect(via).await;
        for (asked, arrives) in [
            ("/pub/a?q=1", "/a?q=1"),
            ("/pub", "/"),
            ("/pub/", "/"),
            ("/r/users/1?x", "/v2/users/1?x"),
            ("/up/a", "/a"),
            ("/pub//a/../b", "/b"),
        ] {
            assert_eq!(client.send(get(asked)).await.status, 200, "{asked}");
            assert_eq!(origin.last().target, arrives, "{asked}");
        }
    }
}

/// Traefik's class of 2026: what a rewrite leads to is held against the closed routes again.
#[tokio::test]
async fn no_rewrite_leads_into_a_closed_route() {
    let origin = origin::http().run().await;
    let gateway = rewriting(&origin).run().await;
    for via in Via::ALL {
        for asked in [
            "/pub/internal/x",
            "/any/internal",
            "/up/internal/x",
            "/pub/%69nternal/x",
            "/pub//internal/x",
            "/any/x/../internal/y",
        ] {
            let answer = gateway.send(via, get(asked)).await;
            assert_eq!(
                answer.verdict(),
                refused(404, "route_closed"),
                "{via:?} {asked}"
            );
        }
        // These never were under the prefix.
        for asked in ["/pub/../internal/x", "/pub/%2e%2e/internal/x"] {
            let answer = gateway.send(via, get(asked)).await;
            assert_eq!(
                answer.verdict(),
                refused(404, "route_closed"),
                "{via:?} {asked}"
            );
        }
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_prefix_is_a_path_and_not_a_text() {
    let origin = origin::http().run().await;
    let gateway = rewriting(&origin).run().await;
    assert_eq!(
        gateway.ask(get("/publication")).await.verdict(),
        refused(404, "no_route")
    );
    assert_eq!(gateway.ask(get("/any/a%2Fb")).await.status, 200);
    assert_eq!(origin.only().target, "/a%2Fb");
}
