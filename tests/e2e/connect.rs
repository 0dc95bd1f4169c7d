//! Connect passes through byte for byte, and is refused in its own words.

use crate::matrix;
use crate::support::client::{Told, get, post};
use crate::support::gateway::{conf, open_to};
use crate::support::origin::{self, Reply};

const ENVELOPE: &[u8] = b"\0\0\0\0\x02hi\x02\0\0\0\x02{}";

matrix! {
    async fn every_kind_of_call_passes(via, speaks) {
        let origin = origin::speaking(speaks)
            .path("/s.S/Get", Reply::text("{\"a\":1}").header("content-type", "application/json").header("trailer-x", "t"))
            .path("/s.S/Unary", Reply::text("\u{1}\u{2}").header("content-type", "application/proto"))
            .path("/s.S/Fails", Reply::text("{\"code\":\"not_found\"}").status(404).header("content-type", "application/json"))
            .path("/s.S/Stream", Reply::chunks([ENVELOPE]).header("content-type", "application/connect+proto"))
            .run()
            .await;
        let gateway = open_to(&origin).run().await;
        let mut client = gateway.connect(via).await;

        let target = "/s.S/Get?connect=v1&encoding=json&message=%7B%22a%22%3A1%7D&base64=0";
        let answer = client.send(get(target)).await;
        assert_eq!((answer.status.as_u16(), answer.header("trailer-x"), answer.text().as_str()), (200, "t", "{\"a\":1}"));
        assert_eq!(origin.last().target, target);

        let unary = post("/s.S/Unary", "\u{3}").header("content-type", "application/proto").header("connect-protocol-version", "1");
        let answer = client.send(unary).await;
        assert_eq!((answer.header("content-type"), answer.text().as_str()), ("application/proto", "\u{1}\u{2}"));
        let seen = origin.last();
        assert_eq!((seen.header("connect-protocol-version"), seen.text().as_str()), ("1", "\u{3}"));

        let fails = post("/s.S/Fails", "{}").header("content-type", "application/json").header("connect-protocol-version", "1");
        let answer = client.send(fails).await;
        assert_eq!(answer.verdict(), (404, "not_found".to_owned()));

        let stream = post("/s.S/Stream", ENVELOPE).header("content-type", "application/connect+proto");
        let answer = client.send(stream).await;
        assert_eq!((answer.header("content-type"), &answer.body[..]), ("application/connect+proto", ENVELOPE));
        assert_eq!(&origin.last().body[..], ENVELOPE);
    }
}

matrix! {
    async fn every_kind_of_call_is_refused_in_connect(via, speaks) {
        let origin = origin::speaking(speaks).run().await;
        let gateway = conf("[[route]]\nauth = \"none\"\nupstream = \"api\"\nfrom = [\"192.0.2.0/24\"]").upstream("api", &origin).run().await;
        let mut client = gateway.connect(via).await;
        let versioned = post("/s.S/M", "{}").header("content-type", "application/json").header("connect-protocol-version", "1");
        for call in [
            get("/s.S/M?connect=v1&encoding=json&message=e30"),
            versioned,
            post("/s.S/M", "").header("content-type", "application/proto"),
        ] {
            let answer = client.send(call).await;
            assert_eq!(answer.verdict(), (403, "permission_denied".to_owned()));
            assert_eq!(answer.header("content-type"), "application/json");
            let message = answer.at("/message").to_string();
            assert!(message.contains("network_forbidden"), "{message}");
        }
        let stream = post("/s.S/M", ENVELOPE).header("content-type", "application/connect+json");
        let answer = client.send(stream).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type"), answer.body[0]), (200, "application/connect+json", 2));
        assert!(origin.saw_nothing());
    }
}
