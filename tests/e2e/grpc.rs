//! Native gRPC through the gateway, against a real gRPC server (the demo's), and refusals as `grpc-status`.

use bytes::Bytes;
use http::{HeaderMap, Uri};
use prost::Message;
use vestibule::demo::backend::{self, Backend, Settings};
use vestibule::demo::client::rpc::{self, Call, Wire};
use vestibule::demo::client::{self, Client, ClientTls, Target};
use vestibule::demo::grpc::{
    COUNTDOWN, CountdownReply, CountdownRequest, HEALTH_CHECK, HealthReply, HealthRequest,
    HelloReply, HelloRequest, SAY_HELLO, SERVING,
};

use crate::matrix;
use crate::support::client::{Via, fields, post};
use crate::support::gateway::{Builder, Gateway, conf};
use crate::support::origin::{self, Reply, gate};
use crate::support::{body, issuer, pki};

pub(crate) async fn demo() -> Backend {
    backend::start(Settings::default()).await.unwrap()
}

pub(crate) fn in_front_of(backend: &Backend, keys: &str) -> Builder {
    conf(&format!(
        "[[route]]\nname = \"rpc\"\nauth = \"none\"\nupstream = \"api\"\n{keys}"
    ))
    .upstream_at("api", "h2c", backend.address, "")
}

pub(crate) async fn client(gateway: &Gateway, via: Via) -> Client {
    let tls = via.is_tls().then(|| ClientTls {
        root_pem: std::fs::read_to_string(pki::SHARED.ca()).unwrap(),
        server_name: pki::HOST.to_owned(),
    });
    let target = Target {
        address: gateway.address(via),
        tls,
        http2: via.is_h2(),
    };
    client::connect(&target).await.unwrap()
}

pub(crate) fn uri(via: Via, path: &str) -> Uri {
    format!("{}://{}{path}", via.scheme(), pki::HOST)
        .parse()
        .unwrap()
}

pub(crate) async fn say_hello(
    client: &mut Client,
    via: Via,
    wire: Wire,
    name: &str,
) -> Call<HelloReply> {
    let metadata = fields(&[
        ("x-echo-a", "1"),
        ("x-echo-bin", "AAEC"),
        ("x-auth-user", "root"),
    ]);
    let message = HelloRequest {
        name: name.to_owned(),
    };
    rpc::call(client, wire, &uri(via, SAY_HELLO), &metadata, &message)
        .await
        .unwrap()
}

pub(crate) async fn count_down(
    client: &mut Client,
    via: Via,
    wire: Wire,
    from: u32,
    abort_at: u32,
) -> Call<CountdownReply> {
    let message = CountdownRequest {
        from,
        pause_ms: 1,
        abort_at,
    };
    ask(client, via, wire, COUNTDOWN, &message).await
}

async fn ask<M: Message, R: Message + Default>(
    client: &mut Client,
    via: Via,
    wire: Wire,
    path: &str,
    message: &M,
) -> Call<R> {
    rpc::call(client, wire, &uri(via, path), &HeaderMap::new(), message)
        .await
        .unwrap()
}

#[tokio::test]
async fn unary_streaming_and_errors_pass() {
    let backend = demo().await;
    let gateway = in_front_of(&backend, "").run().await;
    for via in [Via::H2c, Via::TlsH2] {
        let mut client = client(&gateway, via).await;
        let call = say_hello(&mut client, via, Wire::Grpc, "World").await;
        assert_eq!(
            (call.status, call.messages[0].message.as_str()),
            (Some(0), "Hello, World!")
        );
        assert_eq!(
            call.messages[0].user, "",
            "no identity of the client's making"
        );
        assert_eq!(
            (
                call.headers["x-echo-a"].clone(),
                call.headers["x-echo-bin"].clone()
            ),
            ("1".parse().unwrap(), "AAEC".parse().unwrap())
        );

        let call = say_hello(&mut client, via, Wire::Grpc, "").await;
        assert_eq!(
            (call.status, call.message.as_str()),
            (Some(3), "name%20is%20empty")
        );

        let call = count_down(&mut client, via, Wire::Grpc, 100, 0).await;
        assert_eq!((call.status, call.messages.len()), (Some(0), 101));

        let call = count_down(&mut client, via, Wire::Grpc, 5, 2).await;
        assert_eq!((call.status, call.messages.len()), (Some(10), 3));

        let message = HealthRequest {
            service: String::new(),
        };
        let call: Call<HealthReply> =
            ask(&mut client, via, Wire::Grpc, HEALTH_CHECK, &message).await;
        assert_eq!((call.status, call.messages[0].status), (Some(0), SERVING));

        let message = HelloRequest {
            name: "x".to_owned(),
        };
        let call: Call<HelloReply> = ask(
            &mut client,
            via,
            Wire::Grpc,
            "/demo.v1.Greeter/Nothing",
            &message,
        )
        .await;
        assert_eq!(call.status, Some(12));
    }
    gateway.settled().await;
}

matrix! {
    /// A verdict without messages travels in the head, and must still be one afterwards.
    async fn trailers_only_passes(via, speaks) {
        let reply = Reply::empty(200).header("content-type", "application/grpc").header("grpc-status", "5").header("grpc-message", "none");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = crate::support::gateway::open_to(&origin).run().await;
        let answer = gateway.send(via, post("/s.S/M", "").header("content-type", "application/grpc").header("te", "trailers")).await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status"), answer.header("grpc-message")), (200, "5", "none"));
        assert_eq!(answer.body.len(), 0);
    }
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let origin = origin::h2c()
        .early(
            "/s.S/Chat",
            Reply::echo().header("content-type", "application/grpc"),
        )
        .run()
        .await;
    let gateway = crate::support::gateway::open_to(&origin).run().await;
    let mut client = gateway.connect(Via::TlsH2).await;
    let (sender, payload) = body::channel();
    let call = post("/s.S/Chat", "")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(payload);
    let mut response = client.start(call).await.unwrap();
    for n in 0..10u8 {
        let message = Bytes::from(vec![0, 0, 0, 0, 1, n]);
        sender.chunk(message.clone());
        let frame = crate::support::soon(
            "the echo",
            http_body_util::BodyExt::frame(response.body_mut()),
        )
        .await;
        assert_eq!(origin::data(frame.unwrap().unwrap()), message);
    }
    drop(sender);
    let rest = crate::support::client::collect(response).await.unwrap();
    assert_eq!(rest.body.len(), 0);
    gateway.settled().await;
}

#[tokio::test]
async fn refusals_are_grpc_statuses() {
    let issuer = issuer::run().await;
    let origin = origin::h2c().run().await;
    let gateway = conf(
        r#"
        [[route]]
        grpc = "s.Guarded"
        auth = { any = ["main"], roles = ["admin"] }
        upstream = "api"
        [[route]]
        grpc = "s.Slow"
        auth = "none"
        upstream = "mute"
        timeout = "200ms"
        [[route]]
        grpc = "s.Gone"
        auth = "none"
        upstream = "gone"
    "#,
    )
    .issuer(&issuer)
    .upstream("api", &origin)
    .upstream_at("mute", "h2c", crate::support::raw::silent().await, "")
    .upstream_at("gone", "h2c", crate::support::raw::nowhere().await, "")
    .run()
    .await;
    gateway.ready().await;
    let token = issuer.token().sign();
    for (path, token, status, code) in [
        ("/s.Guarded/M", None, "16", "credential_missing"),
        ("/s.Guarded/M", Some("x.y.z"), "16", "credential_malformed"),
        ("/s.Guarded/M", Some(token.as_str()), "7", "forbidden"),
        ("/s.Unknown/M", None, "12", "no_route"),
        ("/s.Slow/M", None, "4", "upstream_timeout"),
        ("/s.Gone/M", None, "14", "upstream_unreachable"),
    ] {
        let call = post(path, "")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let call = match token {
            Some(token) => call.bearer(token),
            None => call,
        };
        let answer = gateway.send(Via::H2c, call).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("grpc-status")),
            (200, status),
            "{path}"
        );
        assert!(
            answer.header("grpc-message").contains(code),
            "{path}: {}",
            answer.header("grpc-message")
        );
    }
    assert!(origin.saw_nothing());
}

/// The client gives up a stream, not the connection; the call to the backend ends too.
#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_backend() {
    let gate = gate();
    let reply =
        Reply::two_halves("\0\0\0\0\0", &gate, "never").header("content-type", "application/grpc");
    let origin = origin::h2c().reply(reply).run().await;
    let gateway = crate::support::gateway::open_to(&origin).run().await;
    let mut client = gateway.connect(Via::H2c).await;
    for _ in 0..50 {
        let response = client
            .start(post("/s.S/M", "").header("content-type", "application/grpc"))
            .await
            .unwrap();
        drop(response);
    }
    gateway.settled().await;
    assert_eq!(origin.heads(), 50);
}
