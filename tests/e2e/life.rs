//! One honest request, whole: heads, bodies and trailers both ways, over every pair of protocols.

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::matrix;
use crate::support::client::{Told, call, fields, get, post, refused};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply, Speaks, gate};
use crate::support::{body, soon};

matrix! {
    async fn hello_passes(via, speaks) {
        let reply = Reply::text("hello").header("x-of", "origin").header("set-cookie", "a=1").header("set-cookie", "b=2");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = open_to(&origin).run().await;

        let answer = gateway.send(via, get("/hello?name=a%20b&c").header("x-my", "1").header("x-my", "2")).await;

        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("x-of"), "origin");
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        let wanted = if via.is_tls() { ["a=1; Secure", "b=2; Secure"] } else { ["a=1", "b=2"] };
        assert_eq!(cookies, wanted, "on TLS they are for TLS alone");
        let seen = origin.only();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/hello?name=a%20b&c"));
        assert_eq!(seen.authority, "test.example");
        assert_eq!(seen.all("x-my"), ["1", "2"]);
        assert_eq!(seen.version == http::Version::HTTP_2, speaks.is_h2());
        assert_eq!(seen.body, "");
        assert!(!seen.has("transfer-encoding") && seen.whole);
    }
}

matrix! {
    async fn the_request_id_is_one_for_client_and_origin(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;

        let mut client = gateway.connect(via).await;
        let first = client.send(get("/").header("x-request-id", "mine")).await;
        let second = client.send(get("/")).await;

        let seen = origin.saw();
        assert_eq!(seen[0].header("x-request-id"), first.header("x-request-id"));
        assert_eq!(seen[1].header("x-request-id"), second.header("x-request-id"));
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
        assert_ne!(first.header("x-request-id"), "mine");
    }
}

matrix! {
    async fn a_mebibyte_streams_both_ways(via, speaks) {
        let origin = origin::speaking(speaks).early("/echo", Reply::echo()).run().await;
        let gateway = open_to(&origin).run().await;
        let sent: Vec<Bytes> = (0..64u8).map(|n| Bytes::from(vec![n; 16 * 1024])).collect();

        let call = post("/echo", "").body(body::chunks(sent.clone(), None));
        let answer = gateway.send(via, call).await;

        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 1 << 20));
        assert!(answer.body == sent.concat());
        gateway.settled().await;
    }
}

matrix! {
    async fn a_sized_body_keeps_its_length(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;

        let answer = gateway.send(via, post("/in", "ping").header("content-type", "text/plain")).await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), "5");
        let seen = origin.only();
        assert_eq!((seen.text().as_str(), seen.header("content-length")), ("ping", "4"));
        assert_eq!(seen.header("content-type"), "text/plain");
        assert!(!seen.has("transfer-encoding"));
    }
}

matrix! {
    async fn chunks_arrive_while_the_rest_is_still_to_come(via, speaks) {
        let gate = gate();
        let origin = origin::speaking(speaks).reply(Reply::two_halves("one", &gate, "two")).run().await;
        let gateway = open_to(&origin).run().await;

        let mut client = gateway.connect(via).await;
        let mut response = client.start(get("/")).await.unwrap();
        let first = soon("the first half", response.body_mut().frame()).await;
        assert_eq!(origin::data(first.unwrap().unwrap()), "one");
        assert!(gateway.metric("vestibule_requests_in_flight", &[]).await > 0.0);

        gate.open();
        let rest = soon("the second half", response.into_body().collect()).await;
        assert_eq!(rest.unwrap().to_bytes(), "two");
        gateway.settled().await;
    }
}

matrix! {
    /// Trailers of gRPC pass both ways; those of other requests stay behind, as a backend might merge them into headers.
    async fn trailers_pass_for_grpc(via, speaks) {
        let reply = Reply::text("pong").header("content-type", "application/grpc").trailer("grpc-status", "0");
        let origin = origin::speaking(speaks).reply(reply).run().await;
        let gateway = open_to(&origin).run().await;

        let trailers = fields(&[("grpc-x", "kept"), ("x-auth-user", "root"), ("x-other", "dropped")]);
        let call = post("/s.S/M", "").header("content-type", "application/grpc").header("te", "trailers")
            .body(body::chunks([Bytes::from("ping")], Some(trailers)));
        let call = if via.is_h2() { call } else { call.header("trailer", "grpc-x, x-auth-user, x-other") };
        let answer = gateway.send(via, call).await;

        assert_eq!(answer.text(), "pong");
        let seen = origin.only();
        assert_eq!(seen.text(), "ping");
        assert!(!seen.trailers.contains_key("x-auth-user") && !seen.trailers.contains_key("x-other"));
        if via.is_h2() && speaks.is_h2() {
            assert_eq!(seen.trailers["grpc-x"], "kept");
            assert_eq!(answer.trailers["grpc-status"], "0");
        }
    }
}

matrix! {
    async fn trailers_of_other_requests_stay_behind(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;

        let trailers = fields(&[("grpc-x", "1"), ("x-auth-user", "root")]);
        let call = post("/", "").body(body::chunks([Bytes::from("ping")], Some(trailers)));
        let call = if via.is_h2() { call } else { call.header("trailer", "grpc-x, x-auth-user") };
        let answer = gateway.send(via, call).await;

        assert_eq!(answer.status, 200);
        let seen = origin.only();
        assert_eq!((seen.text().as_str(), seen.trailers.len()), ("ping", 0));
        assert!(!seen.has("x-auth-user") && !seen.has("trailer"));
    }
}

matrix! {
    async fn head_204_and_304_have_no_body(via, speaks) {
        let sized = Reply::empty(200).header("content-length", "5");
        let origin = origin::speaking(speaks)
            .path("/head", sized)
            .path("/none", Reply::empty(204))
            .path("/same", Reply::empty(304).header("etag", "\"1\""))
            .run().await;
        let gateway = open_to(&origin).run().await;
        let mut client = gateway.connect(via).await;

        let answer = client.send(call("HEAD", "/head")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-length"), answer.body.len()), (200, "5", 0));
        let answer = client.send(get("/none")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        let answer = client.send(get("/same").header("if-none-match", "\"1\"")).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag"), answer.body.len()), (304, "\"1\"", 0));
        // The connection is still in step.
        assert_eq!(client.send(get("/")).await.text(), "hello");
        assert_eq!(origin.saw().len(), 4);
    }
}

matrix! {
    async fn every_status_and_method_passes_as_it_is(via, speaks) {
        let origin = origin::speaking(speaks).otherwise(|seen| {
            Reply::empty(seen.target[1..].parse().unwrap())
        }).run().await;
        let gateway = open_to(&origin).run().await;
        let mut client = gateway.connect(via).await;

        for (method, status) in [("GET", 404), ("POST", 201), ("PUT", 409), ("DELETE", 500), ("PATCH", 418), ("OPTIONS", 299)] {
            let answer = client.send(call(method, &format!("/{status}"))).await;
            assert_eq!((answer.status.as_u16(), answer.code()), refused(status, ""), "{method}");
            assert_eq!(origin.last().method, method);
        }
    }
}

matrix! {
    /// R22: what the client gives up is given up towards the origin as well.
    async fn a_client_that_leaves_leaves_nothing_in_flight(via, speaks) {
        let origin = origin::speaking(speaks).reply(Reply::never()).run().await;
        let gateway = open_to(&origin).run().await;

        let mut client = gateway.connect(via).await;
        let waiting = async { client.start(get("/")).await };
        tokio::select! {
            answer = waiting => panic!("{answer:?}"),
            () = origin.reached(1) => {}
        }
        client.hang_up();

        gateway.settled().await;
    }
}

#[tokio::test]
async fn a_hundred_streams_share_a_connection_and_one_to_the_origin() {
    let gate = gate();
    let reply = Reply::text("late").behind(&gate);
    let origin = origin::h2c().reply(reply).run().await;
    let gateway = open_to(&origin).run().await;

    let client = gateway.connect(crate::support::client::Via::H2c).await;
    let streams: Vec<_> = (0..100)
        .map(|number| {
            let mut client = client.another();
            tokio::spawn(async move { client.send(get(&format!("/{number}"))).await })
        })
        .collect();
    origin.reached(100).await;
    gateway
        .counted("vestibule_requests_in_flight", &[], 100.0)
        .await;
    gate.open();
    for stream in streams {
        assert_eq!(stream.await.unwrap().text(), "late");
    }
    assert_eq!(origin.connections(), 1);
    gateway.settled().await;
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    for speaks in [Speaks::Http, Speaks::Https, Speaks::H2c, Speaks::H2] {
        let origin = origin::speaking(speaks).run().await;
        let gateway = open_to(&origin).run().await;
        for _ in 0..5 {
            assert_eq!(gateway.ask(get("/")).await.status, 200);
        }
        assert_eq!(origin.connections(), 1, "{speaks:?}");
    }
}

#[tokio::test]
async fn a_request_beyond_the_ceiling_is_shed() {
    let gate = gate();
    let origin = origin::http()
        .reply(Reply::text("late").behind(&gate))
        .run()
        .await;
    let gateway = conf("max_in_flight = 2\n[[route]]\nauth = \"none\"\nupstream = \"api\"")
        .upstream("api", &origin)
        .run()
        .await;

    let held: Vec<_> = (0..2)
        .map(|_| {
            let address = gateway.at("plain");
            tokio::spawn(async move {
                let via = crate::support::client::Via::H1;
                crate::support::client::connect(address, via)
                    .await
                    .send(get("/"))
                    .await
            })
        })
        .collect();
    origin.reached(2).await;
    let answer = gateway.ask(get("/")).await;
    assert_eq!(answer.verdict(), refused(503, "overloaded"));
    assert_eq!(answer.header("retry-after"), "1");

    gate.open();
    for waiting in held {
        assert_eq!(waiting.await.unwrap().text(), "late");
    }
    gateway.settled().await;
    assert_eq!(origin.heads(), 2);
}
