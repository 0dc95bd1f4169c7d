//! Canaille (Python): an OpenID provider of another make than `oidc_provider`. Its JWTs say RS512 and no `typ` of their
//! own, its times have fractions, and what it gives for client credentials is opaque.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::program::{Program, Server};
use crate::support::client::{self, Answer, Told, Via, get, post, refused};
use crate::support::gateway::{Gateway, conf};
use crate::support::origin::{self, Origin};
use crate::support::{eventually, pki};

const PROVIDER: Program = Program::Python("canaille_provider");
const SECRET: &str = "peer-secret-worth-nothing";

const ROUTES: &str = r#"
    [session.token]
    cookie = "canaille_at"
    issuer = "canaille"
    [session.handle]
    cookie = "canaille_sid"
    introspection = "canaille"
    [session.userinfo]
    cookie = "unused"
    bearer = true
    map = { user = "sub", email = "email" }
    probe = { upstream = "canaille", path = "/oauth/userinfo" }
    [[route]]
    path = "/api"
    auth = { any = ["canaille"] }
    upstream = "api"
    [[route]]
    path = "/web"
    auth = { any = ["token", "handle"] }
    upstream = "api"
    [[route]]
    path = "/asked"
    auth = { any = ["userinfo"] }
    upstream = "api"
"#;

struct House {
    provider: Server,
    origin: Origin,
    gateway: Gateway,
}

async fn house(algorithms: &[&str]) -> House {
    let provider = Server::start(PROVIDER, &json!({})).await;
    let url = format!("http://127.0.0.1:{}", provider.port());
    let secret = pki::SHARED.file("canaille-secret", SECRET);
    let issuer = format!(
        r#"
        [upstream.canaille]
        endpoints = ["{url}"]
        [issuer.canaille]
        url = "{url}"
        audiences = ["peer"]
        algorithms = {algorithms:?}
        [issuer.canaille.introspection]
        url = "{url}/oauth/introspect"
        client_id = "peer"
        client_secret = {{ file = {secret:?} }}
        cache = "0s"
        "#
    );
    let origin = origin::http().run().await;
    let gateway = conf(ROUTES)
        .and(&issuer)
        .upstream("api", &origin)
        .run()
        .await;
    gateway.ready().await;
    House {
        provider,
        origin,
        gateway,
    }
}

impl House {
    /// Asks the provider itself.
    async fn told(&self, path: &str, form: &str) -> Answer {
        let address = format!("127.0.0.1:{}", self.provider.port());
        let mut client = client::connect(address.parse().unwrap(), Via::H1).await;
        let credentials = STANDARD.encode(format!("peer:{SECRET}"));
        let call = post(path, form.to_owned())
            .host(&address)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", &format!("Basic {credentials}"));
        client.send(call).await
    }

    async fn token(&self, grant: &str) -> String {
        let form = format!("grant_type={grant}&scope=openid%20email");
        let answer = self.told("/oauth/token", &form).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.at("/access_token").as_str().unwrap().to_owned()
    }

    async fn jwt(&self) -> String {
        self.token("password&username=alice&password=correct%20horse%20battery%20staple")
            .await
    }
}

#[tokio::test]
async fn its_tokens_are_verified_by_what_discovery_tells() {
    let house = house(&["RS512", "EdDSA"]).await;
    let jwt = house.jwt().await;
    for via in [Via::H1, Via::TlsH1, Via::TlsH2, Via::H2c] {
        let mut client = house.gateway.connect(via).await;
        assert_eq!(client.send(get("/api").bearer(&jwt)).await.status, 200);
        let seen = house.origin.last();
        assert_eq!(seen.header("x-auth-user"), "alice");
        assert_eq!(seen.header("x-auth-email"), "alice@example.com");
        let cookie = format!("canaille_at={jwt}");
        let web = client.send(get("/web").header("cookie", &cookie)).await;
        assert_eq!(web.status, 200);
        let forged = format!("{}AAAAAA", &jwt[..jwt.len() - 6]);
        let answer = client.send(get("/api").bearer(&forged)).await;
        assert_eq!(answer.verdict(), refused(401, "token_signature"));
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_listed_makes_no_key_of_its_own() {
    let house = house(&["EdDSA"]).await;
    let answer = house
        .gateway
        .ask(get("/api").bearer(&house.jwt().await))
        .await;
    assert_eq!(answer.verdict(), refused(401, "token_algorithm"));
    assert!(house.origin.saw_nothing());
}

#[tokio::test]
async fn its_opaque_tokens_are_asked_about_until_they_are_revoked() {
    let house = house(&["RS512"]).await;
    let opaque = house.token("client_credentials").await;
    assert!(!opaque.contains('.'));
    let cookie = format!("canaille_sid={opaque}");
    let asked = async |call| house.gateway.ask(call).await.verdict();
    assert_eq!(asked(get("/api").bearer(&opaque)).await.0, 200);
    assert_eq!(house.origin.last().header("x-auth-method"), "introspection");
    assert_eq!(asked(get("/web").header("cookie", &cookie)).await.0, 200);

    let revoked = house
        .told("/oauth/revoke", &format!("token={opaque}"))
        .await;
    assert_eq!(revoked.status, 200);
    let inactive = refused(401, "token_inactive");
    eventually("the issuer says that it has ended", async || {
        asked(get("/api").bearer(&opaque)).await == inactive
    })
    .await;
    assert_eq!(asked(get("/web").header("cookie", &cookie)).await, inactive);
}

#[tokio::test]
async fn its_userinfo_confirms_a_session() {
    let house = house(&["RS512"]).await;
    let jwt = house.jwt().await;
    let answer = house.gateway.ask(get("/asked").bearer(&jwt)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(house.origin.last().header("x-auth-user"), "alice");
    assert_eq!(house.origin.last().header("x-auth-method"), "session");
    let answer = house.gateway.ask(get("/asked").bearer("nobody")).await;
    assert_eq!(answer.verdict(), refused(401, "session_invalid"));
    assert_eq!(
        answer.at("/detail"),
        Value::Null,
        "bodies hold no internals"
    );
}
