use super::step::Door;
use super::*;
use crate::demo::backend::{self, Settings};
use crate::types::task;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

fn nowhere() -> SocketAddr {
    // Bound and given back: nobody listens there now.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn place(http: SocketAddr) -> Place {
    Place {
        https: nowhere(),
        http,
        admin: nowhere(),
        root_pem: String::new(),
        root_file: "certs/dev/ca.crt".to_owned(),
    }
}

fn step(title: &str) -> &'static Step {
    STEPS.iter().find(|step| step.title == title).unwrap()
}

fn line(title: &str) -> String {
    let mut place = place(([127, 0, 0, 1], 8080).into());
    place.https.set_port(8443);
    place.admin.set_port(9901);
    curl::line(&place, step(title))
}

#[test]
fn a_curl_line_repeats_the_step() {
    assert_eq!(
        line("Health over HTTP/2 and TLS"),
        "curl -s -i --cacert certs/dev/ca.crt --http2 https://localhost:8443/health"
    );
    assert_eq!(
        line("The protected route with a forged token"),
        "curl -s -i --cacert certs/dev/ca.crt --http2 -H \"authorization: Bearer ${TOKEN%??????}AAAAAA\" \
         https://localhost:8443/api/whoami"
    );
    let grpc = line("A native gRPC call");
    assert!(
        grpc.starts_with(r"printf '\000\000\000\000\005\012\003Ada' | curl -s -i -o - "),
        "{grpc}"
    );
    let web = line("The same call as gRPC-Web in text");
    assert!(web.contains("-d AAAAAAUKA0FkYQ== "), "{web}");
    let metrics = line("The metrics that counted it all");
    assert!(
        metrics.ends_with(":9901/metrics | grep ^vestibule_requests_total"),
        "{metrics}"
    );
}

#[test]
fn a_token_is_forged_in_its_signature_only() {
    let bag = Bag {
        token: "header.claims.signature".to_owned(),
        ..Bag::default()
    };
    assert_eq!(forged(&bag), "header.claims.sigAAAAAA");
    assert_eq!(forged(&Bag::default()), FORGED_END);
}

#[tokio::test]
async fn a_step_is_asked_and_told_as_it_went() {
    let backend = backend::start(Settings::default()).await.unwrap();
    let place = place(backend.address);
    let step = step("Health over HTTP/2 in cleartext, with prior knowledge");
    let verdict = take(&place, step, &mut Bag::default()).await;
    assert!(verdict.right);
    let mut out = Vec::new();
    tell(&mut out, &place, 4, step, &verdict).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("[ ok ]  4. Health over HTTP/2 in cleartext"),
        "{text}"
    );
    assert!(
        text.contains(r#"answered  200 {"status":"pass"}"#),
        "{text}"
    );
    assert!(
        text.contains("again     curl -s -i --http2-prior-knowledge http://localhost:"),
        "{text}"
    );
}

/// The backend behind one cleartext door, without a gateway: what needs none passes, what needs one is found missing.
#[tokio::test]
async fn a_backend_without_a_gateway_is_told_from_one_with() {
    let backend = backend::start(Settings::default()).await.unwrap();
    let place = place(backend.address);
    let mut bag = Bag::default();
    let mut through = async |title: &str| {
        let step = Step {
            door: Door::H2c,
            tries: step::Tries::Once,
            ..*step(title)
        };
        take(&place, &step, &mut bag).await.right
    };
    assert!(through("A token signed with EdDSA").await);
    assert!(through("A login that sets a session").await);
    assert!(through("Logout").await);
    assert!(!through("A protected route without a token").await);
    assert!(!through("The protected route with the EdDSA token").await);
    assert!(!through("The route for sessions after the logout").await);
    assert!(!through("A native gRPC call").await);
    assert!(!through("The same call as gRPC-Web in text").await);
    assert!(!through("A burst that is more than the limit").await);
    assert!(!through("Guesses at one account, until there were too many").await);
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told_and_not_expected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = place(listener.local_addr().unwrap());
    task::spawn("rude server", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 16]).await;
    });
    let step = step("Health over HTTP/2 in cleartext, with prior knowledge");
    let verdict = take(&place, step, &mut Bag::default()).await;
    assert!(!verdict.right);
    assert!(verdict.came.starts_with("no answer"), "{}", verdict.came);
}

#[test]
fn guesses_are_wrong_until_the_account_is_limited_and_nothing_else_will_do() {
    let step = step("Guesses at one account, until there were too many");
    let judge = |statuses: &[u16], quota: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", http::HeaderValue::from_static(quota));
        let status = statuses.last().copied().unwrap_or_default();
        let answer = Answer {
            status: http::StatusCode::from_u16(status).unwrap(),
            version: http::Version::HTTP_2,
            headers,
            body: bytes::Bytes::new(),
            trailers: HeaderMap::new(),
        };
        verdict::judge(step, statuses, answer, &mut Bag::default())
    };
    let account = "\"account\";r=0;t=720";
    let verdict = judge(&[401, 401, 429], account);
    assert!(verdict.right);
    assert!(
        verdict.came.starts_with("2 times 401, then 429"),
        "{}",
        verdict.came
    );
    assert!(!judge(&[401, 401], account).right);
    assert!(!judge(&[429], account).right);
    assert!(!judge(&[401, 200, 429], account).right);
    assert!(!judge(&[401, 429], "\"login\";r=0;t=6").right);
}

#[test]
fn the_metrics_must_have_counted_every_kind_of_answer() {
    let counted = "# TYPE vestibule_requests_total counter\n\
        vestibule_requests_total{listener=\"https\",method=\"GET\",route=\"api\",status=\"200\"} 3\n\
        vestibule_requests_total{listener=\"http\",method=\"GET\",route=\"api\",status=\"200\"} 1\n\
        vestibule_requests_total{listener=\"https\",method=\"GET\",route=\"api\",status=\"401\"} 2\n";
    let refused = "vestibule_requests_total{listener=\"https\",method=\"GET\",route=\"limited\",status=\"429\"} 1\n";
    let judge = |text: String| {
        let answer = Answer {
            status: http::StatusCode::OK,
            version: http::Version::HTTP_11,
            headers: HeaderMap::new(),
            body: text.into(),
            trailers: HeaderMap::new(),
        };
        let step = step("The metrics that counted it all");
        verdict::judge(step, &[200], answer, &mut Bag::default())
    };
    assert!(!judge(counted.to_owned()).right);
    let all = judge(format!("{counted}{refused}"));
    assert!(all.right);
    assert_eq!(
        all.came,
        "vestibule_requests_total by status: 200: 4, 401: 2, 429: 1"
    );
}
