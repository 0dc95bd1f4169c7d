//! The backend over real sockets, asked by the clients of this room.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use super::backend::{self, Backend, Settings};
use super::client::rpc::{self, Call, Wire};
use super::client::{self, Answer, Client, Target};
use super::grpc::{
    COUNTDOWN, CountdownReply, CountdownRequest, HEALTH_CHECK, HEALTH_WATCH, HealthReply,
    HealthRequest, HelloReply, HelloRequest, SAY_HELLO, SERVING,
};
use super::{Previous, SEEDED_EMAIL, SEEDED_PASSWORD, Signing, oidc};

struct Caller {
    backend: Backend,
    client: Client,
}

impl Caller {
    async fn http1() -> Self {
        Self::over(Target::http1).await
    }

    async fn h2c() -> Self {
        Self::over(Target::h2c).await
    }

    async fn over(target: fn(std::net::SocketAddr) -> Target) -> Self {
        let backend = backend::start(Settings::default()).await.unwrap();
        let client = client::connect(&target(backend.address)).await.unwrap();
        Self { backend, client }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.backend.address)
            .parse()
            .unwrap()
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        self.client.send(request.body(body).unwrap()).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send("POST", path, &json, &body.to_string()).await
    }

    async fn token(&mut self, form: &str) -> Answer {
        let fields = [("content-type", "application/x-www-form-urlencoded")];
        let client = format!(
            "client_id={}&client_secret={}&{form}",
            oidc::CLIENT_ID,
            oidc::CLIENT_SECRET
        );
        self.send("POST", "/oauth/token", &fields, &client).await
    }

    async fn verify(&mut self, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
        let keys: JwkSet = serde_json::from_value(self.get("/oauth/keys").await.json()).unwrap();
        let header = jsonwebtoken::decode_header(token)?;
        let missing = jsonwebtoken::errors::ErrorKind::InvalidSignature;
        let key = keys.find(&header.kid.unwrap()).ok_or(missing)?;
        let mut wanted = Validation::new(header.alg);
        wanted.set_issuer(&[self.backend.issuer()]);
        wanted.set_audience(&["demo"]);
        let decoded = jsonwebtoken::decode(token, &DecodingKey::from_jwk(key)?, &wanted)?;
        Ok(decoded.claims)
    }

    async fn rpc<M: prost::Message + Default>(
        &mut self,
        path: &str,
        metadata: &[(&'static str, &'static str)],
        message: &impl prost::Message,
    ) -> Call<M> {
        let metadata: HeaderMap = metadata
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let uri = self.uri(path);
        rpc::call(&mut self.client, Wire::Grpc, &uri, &metadata, message)
            .await
            .unwrap()
    }

    async fn log_in(&mut self) -> Login {
        let ada = json!({ "email": SEEDED_EMAIL, "password": SEEDED_PASSWORD });
        Login::of(&self.post("/v1/auth/login", &ada).await)
    }
}

/// The cookies of a login.
struct Login {
    cookies: String,
    access: String,
    csrf: String,
}

impl Login {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.json()["status"], "success", "{}", answer.text());
        let [access, refresh, csrf] = ["identsphere_at", "identsphere_rt", "identsphere_csrf"]
            .map(|name| answer.cookie(name).unwrap().to_owned());
        let cookies =
            format!("identsphere_at={access}; identsphere_rt={refresh}; identsphere_csrf={csrf}");
        Self {
            cookies,
            access,
            csrf,
        }
    }
}

#[tokio::test]
async fn one_port_speaks_http1_and_h2c() {
    let mut one = Caller::http1().await;
    let mut two = Caller::h2c().await;
    let (first, second) = (one.get("/health").await, two.get("/health").await);
    assert_eq!(first.json(), json!({ "status": "pass" }));
    assert_eq!(second.json(), json!({ "status": "pass" }));
    assert_eq!(
        (first.version, second.version),
        (Version::HTTP_11, Version::HTTP_2)
    );
    assert_eq!(one.backend.requests(), 1);
}

#[tokio::test]
async fn discovery_names_the_public_origin() {
    let settings = Settings {
        issuer: Some("https://localhost:8443".to_owned()),
        ..Settings::default()
    };
    let backend = backend::start(settings).await.unwrap();
    let client = client::connect(&Target::http1(backend.address))
        .await
        .unwrap();
    let mut caller = Caller { backend, client };
    let document = caller.get("/.well-known/openid-configuration").await;
    assert_eq!(document.json()["issuer"], "https://localhost:8443");
    let keys = "https://localhost:8443/oauth/keys";
    assert_eq!(document.json()["jwks_uri"], keys);
}

#[tokio::test]
async fn every_algorithm_signs_tokens_that_the_published_keys_verify() {
    let mut caller = Caller::h2c().await;
    let keys = caller.get("/oauth/keys").await;
    assert_eq!(keys.header("cache-control"), "public, max-age=300");
    for signing in Signing::ALL {
        let form = format!(
            "grant_type=client_credentials&scope=read+write&alg={}",
            signing.as_str()
        );
        let answer = caller.token(&form).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let claims = caller.verify(&token).await.unwrap();
        assert_eq!(claims["org"], "acme");
        assert_eq!(claims["roles"], json!(["reader", "writer"]));

        let forged = caller.backend.token(signing).forged().sign().unwrap();
        assert!(caller.verify(&forged).await.is_err());
        let expired = caller.backend.token(signing).expired().sign().unwrap();
        assert!(caller.verify(&expired).await.is_err());
    }
}

#[tokio::test]
async fn the_token_endpoint_refuses_in_the_words_of_oauth() {
    let mut caller = Caller::http1().await;
    let basic = [("authorization", "Basic d3Jvbmc6d3Jvbmc=")];
    let grant = "grant_type=client_credentials";
    let stranger = caller.send("POST", "/oauth/token", &basic, grant).await;
    assert_eq!(
        (stranger.status.as_u16(), &stranger.json()["error"]),
        (401, &json!("invalid_client"))
    );
    assert!(stranger.header("www-authenticate").starts_with("Basic"));
    for (form, error) in [
        ("grant_type=password", "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=admin", "invalid_scope"),
        ("grant_type=client_credentials&alg=none", "invalid_request"),
        (
            "grant_type=client_credentials&scope=read&scope=read",
            "invalid_request",
        ),
    ] {
        let answer = caller.token(form).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (400, &json!(error))
        );
    }
}

#[tokio::test]
async fn a_rotation_keeps_old_tokens_or_ends_them() {
    let mut caller = Caller::http1().await;
    let token = caller.backend.token(Signing::Es256).sign().unwrap();
    caller.backend.rotate_keys(Previous::Published).unwrap();
    assert!(caller.verify(&token).await.is_ok());
    caller.backend.rotate_keys(Previous::Gone).unwrap();
    assert!(caller.verify(&token).await.is_err());
    let fresh = caller.backend.token(Signing::Es256).sign().unwrap();
    assert!(caller.verify(&fresh).await.is_ok());
}

#[tokio::test]
async fn who_registers_is_logged_in_and_can_come_back() {
    let mut caller = Caller::http1().await;
    let bob = json!({ "email": "Bob@example.com", "password": "long enough", "organization_name": "Bob & Co" });
    Login::of(&caller.post("/v1/auth/register", &bob).await);
    assert_eq!(caller.post("/v1/auth/register", &bob).await.status, 409);
    let login = json!({ "email": "bob@example.com", "password": "long enough" });
    Login::of(&caller.post("/v1/auth/login", &login).await);
    let wrong = json!({ "email": "bob@example.com", "password": "guess" });
    let unknown = json!({ "email": "eve@example.com", "password": "guess" });
    let refusals = [
        caller.post("/v1/auth/login", &wrong).await,
        caller.post("/v1/auth/login", &unknown).await,
    ];
    for refusal in &refusals {
        assert_eq!(refusal.status, 401);
        assert_eq!(refusal.json()["error"]["code"], "invalid_credentials");
    }
    assert_eq!(refusals[0].body, refusals[1].body);
}

#[tokio::test]
async fn a_session_is_good_by_cookie_and_by_bearer_until_logout() {
    let mut caller = Caller::h2c().await;
    let login = caller.log_in().await;
    let bearer = format!("Bearer {}", login.access);
    for field in [
        ("cookie", login.cookies.as_str()),
        ("authorization", &bearer),
    ] {
        let answer = caller.send("GET", "/v1/auth/session", &[field], "").await;
        assert_eq!(answer.json()["user"]["email"], SEEDED_EMAIL);
        assert_eq!(answer.json()["capabilities"]["role"], "owner");
    }
    let cookie = ("cookie", login.cookies.as_str());
    for fields in [vec![cookie], vec![cookie, ("x-csrf-token", "guess")]] {
        let answer = caller.send("POST", "/v1/auth/logout", &fields, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (403, &json!("csrf_failed"))
        );
    }
    let fields = [cookie, ("x-csrf-token", login.csrf.as_str())];
    let out = caller.send("POST", "/v1/auth/logout", &fields, "").await;
    assert_eq!(
        (out.status.as_u16(), out.cookie("identsphere_at")),
        (200, Some(""))
    );
    let after = caller.send("GET", "/v1/auth/session", &[cookie], "").await;
    assert_eq!(
        (after.status.as_u16(), &after.json()["error"]["code"]),
        (401, &json!("authentication_required"))
    );
}

#[tokio::test]
async fn a_refresh_replaces_the_tokens_and_needs_the_csrf_header() {
    let mut caller = Caller::http1().await;
    let old = caller.log_in().await;
    let cookie = ("cookie", old.cookies.as_str());
    let refused = caller.send("POST", "/v1/auth/refresh", &[cookie], "").await;
    assert_eq!(refused.status, 403);
    let fields = [cookie, ("x-csrf-token", old.csrf.as_str())];
    let answer = caller.send("POST", "/v1/auth/refresh", &fields, "").await;
    let new = Login::of(&answer);
    assert_ne!(old.access, new.access);
    let rt = answer.headers.get_all("set-cookie").iter().nth(1).unwrap();
    assert!(
        rt.to_str()
            .unwrap()
            .contains("Path=/v1/auth; Max-Age=2592000; SameSite=Lax; HttpOnly")
    );
    let again = caller.send("POST", "/v1/auth/refresh", &fields, "").await;
    assert_eq!(again.status, 401);
}

#[tokio::test]
async fn a_second_factor_stands_between_the_password_and_the_session() {
    let mut caller = Caller::http1().await;
    let new = json!({ "email": "mfa+eve@example.com", "password": "long enough", "organization_name": "E" });
    caller.post("/v1/auth/register", &new).await;
    let first = caller.post("/v1/auth/login", &new).await;
    assert_eq!(
        (first.status.as_u16(), &first.json()["status"]),
        (200, &json!("mfa_required"))
    );
    assert_eq!(first.cookie("identsphere_at"), None);
    let token = first.json()["mfa_token"].clone();
    let wrong = json!({ "mfa_token": token, "code": "123456" });
    assert_eq!(
        caller.post("/v1/auth/mfa/challenge", &wrong).await.status,
        401
    );
    let right = json!({ "mfa_token": token, "code": "000000" });
    let login = Login::of(&caller.post("/v1/auth/mfa/challenge", &right).await);
    let fields = [("cookie", login.cookies.as_str())];
    let session = caller.send("GET", "/v1/auth/session", &fields, "").await;
    assert!(session.json()["user"]["mfa_verified_at"].is_u64());
}

#[tokio::test]
async fn the_echo_tells_everything_that_arrived() {
    let mut caller = Caller::http1().await;
    let fields = [("x-one", "1"), ("x-two", "1"), ("x-two", "2")];
    let seen = caller
        .send("PUT", "/echo/a/b?c=d", &fields, "abc")
        .await
        .json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(
        (&seen["path"], &seen["query"]),
        (&json!("/echo/a/b"), &json!("c=d"))
    );
    assert_eq!(seen["headers"]["x-one"], "1");
    assert_eq!(seen["headers"]["x-two"], json!(["1", "2"]));
    assert_eq!(seen["body"]["size"], 3);
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(seen["body"]["sha256"], sha256);
}

#[tokio::test]
async fn bodies_come_at_length_or_piece_by_piece_with_a_trailer() {
    let mut caller = Caller::h2c().await;
    let long = caller.get("/bytes/100000").await;
    assert_eq!(
        (long.body.len(), long.header("content-length")),
        (100_000, "100000")
    );
    let head = caller.send("HEAD", "/bytes/100000", &[], "").await;
    assert_eq!(
        (head.body.len(), head.header("content-length")),
        (0, "100000")
    );
    let stream = caller.get("/stream?chunks=3&ms=1").await;
    assert_eq!(stream.text().lines().count(), 3);
    assert_eq!(stream.trailers["x-chunks"], "3");
    assert_eq!(caller.get("/slow?ms=1").await.json()["waited_ms"], 1);
    assert_eq!(caller.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let mut caller = Caller::http1().await;
    let answer = caller
        .post("/v1/auth/login", &json!("x".repeat(70_000)))
        .await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_unary_call_answers_in_one_message_and_a_trailer() {
    let mut caller = Caller::h2c().await;
    let hello = HelloRequest {
        name: "Ada".to_owned(),
    };
    let metadata = [
        ("x-echo", "a"),
        ("x-echo-bin", "AAEC"),
        ("x-auth-user", "ada"),
    ];
    let call: Call<HelloReply> = caller.rpc(SAY_HELLO, &metadata, &hello).await;
    assert_eq!(call.messages[0].message, "Hello, Ada!");
    assert_eq!(call.messages[0].user, "ada");
    assert_eq!(call.trailers["grpc-status"], "0");
    assert!(!call.headers.contains_key("grpc-status"));
    assert_eq!(
        (&call.headers["x-echo"], &call.headers["x-echo-bin"]),
        (&"a".parse().unwrap(), &"AAEC".parse().unwrap())
    );
}

#[tokio::test]
async fn a_refused_call_answers_with_trailers_only() {
    let mut caller = Caller::h2c().await;
    let nameless: Call<HelloReply> = caller.rpc(SAY_HELLO, &[], &HelloRequest::default()).await;
    assert_eq!(
        (nameless.status, nameless.message.as_str()),
        (Some(3), "name%20is%20empty")
    );
    let unknown: Call<HelloReply> = caller
        .rpc("/demo.v1.Greeter/Nothing", &[], &HelloRequest::default())
        .await;
    assert_eq!(unknown.status, Some(12));
    assert_eq!(unknown.headers["grpc-status"], "12");
}

#[tokio::test]
async fn a_stream_counts_down_and_can_be_aborted_in_the_middle() {
    let mut caller = Caller::h2c().await;
    let asked = CountdownRequest {
        from: 3,
        pause_ms: 1,
        abort_at: 0,
    };
    let call: Call<CountdownReply> = caller.rpc(COUNTDOWN, &[], &asked).await;
    let left: Vec<u32> = call.messages.iter().map(|reply| reply.left).collect();
    assert_eq!((left, call.status), (vec![3, 2, 1, 0], Some(0)));
    let asked = CountdownRequest {
        abort_at: 2,
        ..asked
    };
    let call: Call<CountdownReply> = caller.rpc(COUNTDOWN, &[], &asked).await;
    assert_eq!((call.messages.len(), call.status), (1, Some(10)));
    assert_eq!(call.trailers["grpc-status"], "10");
}

#[tokio::test]
async fn health_is_answered_and_watched() {
    let mut caller = Caller::h2c().await;
    let call: Call<HealthReply> = caller
        .rpc(HEALTH_CHECK, &[], &HealthRequest::default())
        .await;
    assert_eq!(call.messages[0].status, SERVING);
    let stranger = HealthRequest {
        service: "nobody".to_owned(),
    };
    let call: Call<HealthReply> = caller.rpc(HEALTH_CHECK, &[], &stranger).await;
    assert_eq!(call.status, Some(5));

    let watch = rpc::request(
        Wire::Grpc,
        &caller.uri(HEALTH_WATCH),
        &HeaderMap::new(),
        &HealthRequest::default(),
    );
    let mut body = caller.client.start(watch).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, rpc::framed(&HealthReply { status: SERVING }));
}

#[tokio::test]
async fn grpc_over_http1_and_grpc_web_find_nothing_here() {
    let mut caller = Caller::http1().await;
    for wire in [Wire::Grpc, Wire::Web, Wire::WebText] {
        let request = rpc::request(
            wire,
            &caller.uri(SAY_HELLO),
            &HeaderMap::new(),
            &HelloRequest::default(),
        );
        let answer = caller.client.send(request).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (404, &json!(5))
        );
    }
}

#[tokio::test]
async fn a_stopped_backend_ends_its_connections_and_frees_its_port() {
    let mut caller = Caller::h2c().await;
    caller.get("/health").await;
    let address = caller.backend.address;
    caller.backend.stop().await;
    let request = Request::get(format!("http://{address}/health"));
    let request = request.body(Full::default()).unwrap();
    assert!(caller.client.send(request).await.is_err());
    let settings = Settings {
        bind: address,
        ..Settings::default()
    };
    assert!(backend::start(settings).await.is_ok());
}
