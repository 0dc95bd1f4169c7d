use super::*;
use crate::authn::jwks::KeySet;
use crate::authn::jwks::fetch::Fetched;
use crate::authn::tests::support::{KEYS, NOW, at, authorities, judged, token_of};
use serde_json::json;

/// Nobody listens on port 1, so that every fetch fails at once.
const UNREACHABLE: &str = "[issuer.main]\nurl = \"http://127.0.0.1:1\"\naudiences = [\"x\"]\n";

#[tokio::test]
async fn the_keeping_task_ends_with_its_issuer() {
    let authorities = authorities(UNREACHABLE);
    let issuer = Arc::clone(&authorities.issuers["main"]);
    let kept = Arc::clone(&issuer).keep_fresh();
    let rest = async move {
        while issuer.fetches_failed() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!issuer.is_ready());
        assert!(issuer.last_error().is_some());
        drop((issuer, authorities));
    };
    tokio::join!(kept, rest);
}

#[tokio::test]
async fn a_second_keeping_task_returns_at_once() {
    let authorities = authorities(UNREACHABLE);
    let issuer = Arc::clone(&authorities.issuers["main"]);
    issuer.is_kept_fresh.store(true, Ordering::Release);
    issuer.keep_fresh().await;
    assert_eq!(authorities.issuers["main"].fetches_failed(), 0);
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_503_with_a_time_to_wait() {
    let authorities = authorities(UNREACHABLE);
    let issuer = &authorities.issuers["main"];
    issuer.refresh().await;
    assert_eq!((issuer.fetches_ok(), issuer.fetches_failed()), (0, 1));
    let why = issuer.unavailable(clock::now());
    assert_eq!(why.reason(), Reason::KeysUnavailable);
    assert!(
        why.wait()
            .is_some_and(|wait| wait >= Duration::from_secs(1))
    );
}

const LOCAL: &str = "http://127.0.0.1:1";

fn install(issuer: &Issuer, kids: &[&str]) {
    let keys: Vec<_> = kids.iter().map(|kid| KEYS["p256"].jwk(kid)).collect();
    let raw = json!({ "keys": keys }).to_string();
    let set = KeySet::parse(raw.as_bytes(), &issuer.algorithms).unwrap();
    let fetched = Fetched {
        set,
        raw: raw.into(),
        stated: None,
    };
    issuer.store().unwrap().install(fetched, clock::now());
}

async fn judge(issuer: &Arc<Issuer>, kid: &str) -> Result<(), Reason> {
    let header = json!({ "alg": "ES256", "kid": kid }).to_string();
    let claims = json!({ "iss": LOCAL, "aud": "x", "sub": "u1", "exp": NOW + 600 });
    let token = token_of(header, claims.to_string(), "ES256", &KEYS["p256"]);
    let verdict = judged(issuer, &token, at(NOW)).await;
    verdict.map(drop).map_err(|why| why.reason())
}

/// As long as the longest token that the issuer may have issued before, by its configuration or by what was seen.
#[tokio::test]
async fn a_cut_off_is_remembered_as_long_as_the_longest_token_lives() {
    let toml = format!("{UNREACHABLE}longest_token = \"1h\"\nleeway = \"30s\"\n");
    let issuer = Arc::clone(&authorities(&toml).issuers["main"]);
    install(&issuer, &["a"]);
    let header = json!({ "alg": "ES256", "kid": "a" }).to_string();
    let seen = async |life: u64| {
        let claims =
            json!({ "iss": LOCAL, "aud": "x", "sub": "u1", "iat": NOW, "exp": NOW + life });
        let token = token_of(&header, claims.to_string(), "ES256", &KEYS["p256"]);
        assert!(judged(&issuer, &token, at(NOW)).await.is_ok());
        issuer
            .cut_off_until(at(NOW))
            .duration_since(at(NOW))
            .unwrap()
            .as_secs()
    };
    assert_eq!(seen(600).await, 3_600 + 30);
    assert_eq!(seen(7_200).await, 7_201 + 30, "longer than was said");
    assert_eq!(seen(600).await, 7_201 + 30, "and not forgotten");
    let year = 366 * 86_400;
    assert_eq!(seen(100 * year).await, year + 30, "no token lives for ever");
}

#[tokio::test]
async fn an_outage_leaves_known_keys_alone_and_makes_unknown_ones_503() {
    let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
    assert_eq!(
        judge(&issuer, "a").await,
        Err(Reason::KeysUnavailable),
        "never loaded"
    );
    install(&issuer, &["a"]);
    issuer.refresh().await;
    assert_eq!(issuer.state(clock::now()), State::Stale);
    assert_eq!(judge(&issuer, "a").await, Ok(()));
    let store = issuer.store().unwrap();
    let wake = store.wake();
    let outage = async {
        wake.notified().await;
        issuer.refresh().await;
    };
    let (unknown, ()) = tokio::join!(judge(&issuer, "b"), outage);
    assert_eq!(unknown, Err(Reason::KeysUnavailable));
    assert_eq!(
        judge(&issuer, "c").await,
        Err(Reason::KeysUnavailable),
        "at once"
    );
    assert_eq!(judge(&issuer, "a").await, Ok(()));
}

#[tokio::test]
async fn a_rotation_is_followed_and_the_old_key_refused_in_spite_of_the_cache() {
    let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
    install(&issuer, &["old"]);
    assert_eq!(judge(&issuer, "old").await, Ok(()));
    let wake = issuer.store().unwrap().wake();
    let rotation = async {
        wake.notified().await;
        issuer.store().unwrap().started();
        install(&issuer, &["old", "new"]);
    };
    let (new, ()) = tokio::join!(judge(&issuer, "new"), rotation);
    assert_eq!(new, Ok(()));
    assert_eq!(judge(&issuer, "old").await, Ok(()), "still published");
    install(&issuer, &["new"]);
    let asked_again = async {
        wake.notified().await;
        issuer.store().unwrap().started();
        install(&issuer, &["new"]);
    };
    let (old, ()) = tokio::join!(judge(&issuer, "old"), asked_again);
    assert_eq!(old, Err(Reason::TokenKey), "withdrawn");
    assert_eq!(
        judge(&issuer, "old").await,
        Err(Reason::TokenKey),
        "at once"
    );
    assert_eq!(judge(&issuer, "new").await, Ok(()));
}

#[tokio::test]
async fn random_kids_are_401_at_once_while_the_bucket_is_empty() {
    let issuer = Arc::clone(&authorities(UNREACHABLE).issuers["main"]);
    install(&issuer, &["a"]);
    let wake = issuer.store().unwrap().wake();
    let fetch = async {
        wake.notified().await;
        issuer.store().unwrap().started();
        install(&issuer, &["a"]);
    };
    let (first, ()) = tokio::join!(judge(&issuer, "random"), fetch);
    assert_eq!(first, Err(Reason::TokenKey));
    for number in 0..50 {
        let verdict = judge(&issuer, &format!("random-{number}")).await;
        assert_eq!(verdict, Err(Reason::TokenKey));
    }
    assert_eq!(issuer.fetches_ok(), 2);
}
