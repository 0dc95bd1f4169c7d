use super::*;
use crate::authn::tests::support::{authn, authorities, identify};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

const TOML: &str =
    "[session.web]\ncookie = \"at\"\nprobe = { upstream = \"api\", path = \"/v1/auth/session\" }\n";

fn session(more: &str) -> Arc<Session> {
    let toml = TOML.replace("cookie", &format!("{more}\ncookie"));
    Arc::clone(&authorities(&toml).sessions["web"])
}

fn probe(session: &Session) -> &Probe {
    match &session.proof {
        Proof::Probe(probe) => probe,
        Proof::Token(..) | Proof::Introspection(_) => panic!("a token"),
    }
}

fn answer(status: u16, body: &str) -> Response<Bytes> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Response::builder().status(status).body(body).unwrap()
}

fn good() -> Response<Bytes> {
    let body = json!({
        "user": { "user_id": "u1", "organization_id": 7, "email": "a@example.com" },
        "capabilities": { "role": "owner", "permissions": ["billing.read", "billing.write"] },
    });
    answer(200, &body.to_string())
}

/// Shows the cookie `x`; the backend answers with `answer`, counted in `asked`.
async fn confirm(
    session: &Session,
    asked: &AtomicUsize,
    answer: Response<Bytes>,
) -> Result<Arc<PrincipalFacts>, Rejection> {
    let probe = probe(session);
    let ask = || async {
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        probe.read(session.name(), &answer)
    };
    let shown = session.fingerprint(Shown::Cookie("x"));
    session.confirm(probe, shown, ask).await
}

#[test]
fn the_probe_tells_the_backend_the_cookie_and_nothing_else() {
    let session = session("");
    let request = probe(&session)
        .request("at", Shown::Cookie("x.y"))
        .ok()
        .unwrap();
    assert_eq!(
        (
            request.method().as_str(),
            request.uri().to_string().as_str()
        ),
        ("GET", "/v1/auth/session")
    );
    assert_eq!(request.headers().len(), 2);
    assert_eq!(request.headers()["cookie"], "at=x.y");
    assert!(request.headers()["cookie"].is_sensitive());
}

#[tokio::test]
async fn a_good_session_is_mapped_and_believed_for_a_while() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    let facts = confirm(&session, &asked, good()).await.unwrap();
    assert_eq!(
        (facts.user.as_str(), facts.org.as_deref()),
        ("u1", Some("7"))
    );
    assert_eq!(facts.roles, ["owner"]);
    assert_eq!(facts.scopes, ["billing.read", "billing.write"]);
    assert!(
        confirm(&session, &asked, answer(500, "")).await.is_ok(),
        "from the cache"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn many_requests_at_once_ask_once() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    let (one, two, three) = tokio::join!(
        confirm(&session, &asked, good()),
        confirm(&session, &asked, good()),
        confirm(&session, &asked, good()),
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// Polls once.
async fn waits(mut future: std::pin::Pin<&mut impl Future>) -> bool {
    let polled = |cx: &mut std::task::Context<'_>| {
        std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())
    };
    std::future::poll_fn(polled).await
}

/// The first to ask asks for all; when its client goes away, those who wait must not go away with it.
#[tokio::test]
async fn whoever_waits_is_not_let_down_when_the_one_who_asks_goes_away() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    let probe = probe(&session);
    let print = session.fingerprint(Shown::Cookie("x"));
    let never = || async {
        asked.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await;
        probe.read(session.name(), &good())
    };
    let mut leader = Box::pin(session.confirm(probe, print, never));
    let mut waiting = Box::pin(confirm(&session, &asked, good()));
    assert!(waits(leader.as_mut()).await && waits(waiting.as_mut()).await);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "asked once");
    drop(leader);
    let facts = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(facts.unwrap().unwrap().user, "u1");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "and then by the next");
}

#[tokio::test]
async fn the_backends_answers_are_told_apart() {
    let step_up = r#"{"error":{"code":"mfa_required","message":"m","type":"t"}}"#;
    for (status, body, expected) in [
        (401, "", Reason::SessionInvalid),
        (
            401,
            r#"{"error":{"code":"authentication_required"}}"#,
            Reason::SessionInvalid,
        ),
        (401, step_up, Reason::SessionStepUp),
        (403, step_up, Reason::SessionInvalid),
        (200, "", Reason::SessionUnavailable),
        (200, "<html>", Reason::SessionUnavailable),
        (200, "{}", Reason::SessionUnavailable),
        (
            200,
            r#"{"user":{"user_id":""}}"#,
            Reason::SessionUnavailable,
        ),
        (204, "", Reason::SessionUnavailable),
        (302, "", Reason::SessionUnavailable),
        (404, "", Reason::SessionUnavailable),
        (429, "", Reason::SessionUnavailable),
        (500, "", Reason::SessionUnavailable),
    ] {
        let (session, asked) = (session(""), AtomicUsize::new(0));
        let why = confirm(&session, &asked, answer(status, body))
            .await
            .unwrap_err();
        assert_eq!(why.reason(), expected, "{status} {body}");
        let is_open = expected == Reason::SessionUnavailable;
        assert_eq!(why.wait().is_some(), is_open, "{status} {body}");
        // A refusal is believed for a moment; a failure is never kept.
        let again = confirm(&session, &asked, good()).await;
        assert_eq!(again.is_ok(), is_open, "{status} {body}");
    }
}

#[tokio::test]
async fn a_backend_that_cannot_be_asked_is_503_and_never_anonymous() {
    let authorities = authorities(TOML);
    let route = authn("{ any = [\"web\"], optional = true }", &authorities);
    let verdict = identify(&route, "cookie", "at=x", SystemTime::UNIX_EPOCH).await;
    assert_eq!(verdict.map(drop), Err(Reason::SessionUnavailable));
}

async fn log_out(session: &Session) {
    let known = session.known(Shown::Cookie("x"), SystemTime::UNIX_EPOCH);
    let revocation = Revocation {
        source: Arc::clone(session.name()),
        what: known.await.unwrap().what,
        until: SystemTime::UNIX_EPOCH,
    };
    session.revoke(&revocation).await;
}

#[tokio::test]
async fn a_logout_is_seen_at_once() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    confirm(&session, &asked, good()).await.unwrap();
    log_out(&session).await;
    let why = confirm(&session, &asked, answer(401, ""))
        .await
        .unwrap_err();
    assert_eq!(why.reason(), Reason::SessionInvalid);
}

#[tokio::test]
async fn a_logout_elsewhere_is_of_no_concern() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    confirm(&session, &asked, good()).await.unwrap();
    for number in 0..100 {
        let other = session.fingerprint(Shown::Cookie(&format!("other {number}")));
        probe(&session).answers.evict(&other).await;
    }
    confirm(&session, &asked, answer(500, "")).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_probe_that_a_logout_overtakes_is_not_kept() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    let probe = probe(&session);
    let ask = || async {
        log_out(&session).await;
        probe.read(session.name(), &good())
    };
    let print = session.fingerprint(Shown::Cookie("x"));
    let overtaken = session.confirm(probe, print, ask).await;
    assert!(overtaken.is_ok(), "it was good when it was asked for");
    assert!(
        confirm(&session, &asked, answer(401, "")).await.is_err(),
        "and is asked for anew"
    );
}

#[tokio::test]
async fn whoever_comes_after_a_logout_is_not_let_in_by_an_older_question() {
    let session = session("");
    let probe = probe(&session);
    let print = session.fingerprint(Shown::Cookie("x"));
    let (answered, mut wait) = (tokio::sync::Notify::new(), true);
    let before = session.confirm(probe, print, || async {
        answered.notified().await;
        probe.read(session.name(), &good())
    });
    let after = async {
        tokio::task::yield_now().await;
        log_out(&session).await;
        let late = session.confirm(probe, print, || async {
            probe.read(session.name(), &answer(401, ""))
        });
        let mut late = std::pin::pin!(late);
        std::future::poll_fn(|cx| {
            // It joins the question that is under way, and only then that is answered.
            let polled = late.as_mut().poll(cx);
            if std::mem::take(&mut wait) {
                assert!(polled.is_pending());
                answered.notify_one();
            }
            polled
        })
        .await
    };
    let (before, after) = tokio::join!(before, after);
    assert!(before.is_ok(), "it came before the logout");
    assert_eq!(after.unwrap_err().reason(), Reason::SessionInvalid);
}

#[tokio::test]
async fn all_sessions_of_a_user_end_together() {
    let (session, asked) = (session(""), AtomicUsize::new(0));
    confirm(&session, &asked, good()).await.unwrap();
    for (user, questions) in [("u2", 1), ("u1", 2)] {
        probe(&session).answers.evict_all_of(user_fingerprint(user));
        confirm(&session, &asked, good()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), questions, "{user}");
    }
}

#[test]
fn a_bearer_token_is_shown_to_the_backend_as_one() {
    let session = session("bearer = true");
    let request = probe(&session)
        .request("at", Shown::Bearer("a.b"))
        .ok()
        .unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer a.b");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.headers().len(), 2);
    assert_ne!(
        session.fingerprint(Shown::Bearer("a")),
        session.fingerprint(Shown::Cookie("a"))
    );
}

#[tokio::test]
async fn without_a_cache_every_request_asks() {
    let (session, asked) = (session("cache = \"0s\""), AtomicUsize::new(0));
    for _ in 0..3 {
        confirm(&session, &asked, good()).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// What one session's backend said of a cookie counts for no other session and for no bearer of the same letters.
#[test]
fn an_answer_counts_for_its_session_its_place_and_its_value() {
    let toml = format!("{TOML}{}", TOML.replace("session.web", "session.other"));
    let both = authorities(&toml);
    let sessions = [&both.sessions["web"], &both.sessions["other"]];
    let mut known = Vec::new();
    for session in sessions {
        for shown in [Shown::Cookie("x"), Shown::Bearer("x"), Shown::Cookie("xx")] {
            let print = session.fingerprint(shown);
            assert_eq!(print, session.fingerprint(shown));
            assert!(!known.contains(&print), "{shown:?}");
            known.push(print);
        }
    }
}
