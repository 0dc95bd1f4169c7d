use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fetch::Fetched;
use super::key::Unfit;
use super::store::{Answer, State, Store};
use super::{KeySet, KeySetError};
use crate::authn::tests::support::{KEYS, STRANGER};
use crate::config::Algorithm;
use crate::types::clock;

const ALLOWED: &[Algorithm] = &[Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn parse(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), ALLOWED)
}

fn fetched(keys: &[Value]) -> Fetched {
    let raw = json!({ "keys": keys }).to_string();
    Fetched {
        set: KeySet::parse(raw.as_bytes(), ALLOWED).unwrap(),
        raw: raw.into(),
        stated: None,
    }
}

fn key(kid: &str) -> Value {
    KEYS["p256"].jwk(kid)
}

fn store(now: Instant) -> Store {
    Store::new(Duration::from_secs(300), Duration::from_secs(3_600), now)
}

#[test]
fn a_set_with_two_keys_of_one_name_is_refused_whole() {
    let twice = parse(&[key("a"), KEYS["rsa"].jwk("b"), key("a")]);
    assert!(matches!(twice, Err(KeySetError::DuplicateKid(kid)) if kid == "a"));
    let unused = json!({ "kty": "EC", "use": "enc", "kid": "a" });
    assert!(matches!(
        parse(&[key("a"), unused]),
        Err(KeySetError::DuplicateKid(_))
    ));
}

#[test]
fn a_set_with_a_shared_secret_is_refused_whole() {
    for secret in [
        json!({ "kty": "oct", "k": "AA" }),
        json!({ "kty": "oct" }),
        json!({ "k": "AA" }),
    ] {
        assert!(matches!(
            parse(&[key("a"), secret]),
            Err(KeySetError::SharedSecret)
        ));
    }
}

#[test]
fn a_set_that_is_none_is_refused() {
    let too_large = format!("{{\"keys\":[]{}}}", " ".repeat(64 * 1024));
    assert!(matches!(
        KeySet::parse(too_large.as_bytes(), ALLOWED),
        Err(KeySetError::TooLarge)
    ));
    for text in ["", "<html>", "[]", "{\"keys\":[],\"keys\":[]}"] {
        assert!(
            matches!(
                KeySet::parse(text.as_bytes(), ALLOWED),
                Err(KeySetError::NotJson(_))
            ),
            "{text}"
        );
    }
    for text in ["{}", "{\"keys\":{}}", "{\"keys\":[1]}", "{\"keys\":null}"] {
        assert!(
            matches!(
                KeySet::parse(text.as_bytes(), ALLOWED),
                Err(KeySetError::NoList)
            ),
            "{text}"
        );
    }
    assert!(matches!(parse(&[]), Err(KeySetError::NoKey(_))), "empty");
}

#[test]
fn keys_that_must_not_verify_are_left_out_and_named() {
    let with = |name: &str, value: Value| {
        let mut entry = key("odd");
        entry[name] = value;
        entry
    };
    for (entry, why) in [
        (with("use", json!("enc")), Unfit::OtherUse),
        (with("use", json!(null)), Unfit::OtherUse),
        (with("key_ops", json!(["sign"])), Unfit::OtherUse),
        (with("key_ops", json!("verify")), Unfit::OtherUse),
        (with("alg", json!("ES384")), Unfit::Unsupported),
        (with("alg", json!("HS256")), Unfit::Unsupported),
        (with("alg", json!(7)), Unfit::Malformed),
        (with("kty", json!("AKP")), Unfit::Unsupported),
        (with("crv", json!("P-521")), Unfit::Unsupported),
        (with("x", json!("AA")), Unfit::Malformed),
        (with("y", key("z")["x"].clone()), Unfit::BadPoint),
        (with("d", json!("AA")), Unfit::Private),
        (with("kid", json!("k".repeat(257))), Unfit::Malformed),
        (KEYS["p384"].jwk("odd"), Unfit::Unsupported),
    ] {
        let set = parse(&[entry.clone(), KEYS["rsa"].jwk("fine")]).unwrap();
        let left_out: Vec<_> = set.left_out().iter().map(|one| one.why).collect();
        assert_eq!((set.keys().len(), left_out), (1, vec![why]), "{entry}");
    }
    let fine = [
        with("use", json!("sig")),
        with("key_ops", json!(["sign", "verify"])),
        with("alg", json!("ES256")),
    ];
    for entry in fine {
        assert!(parse(std::slice::from_ref(&entry)).is_ok(), "{entry}");
    }
}

#[test]
fn a_set_is_unloaded_then_fresh_then_stale_then_expired() {
    let start = clock::now();
    let store = store(start);
    assert_eq!(store.state(start), State::NeverLoaded);
    assert!(store.current(start).is_none());
    store.install(fetched(&[key("a")]), start);
    assert_eq!(store.state(start), State::Fresh);
    store.note_failure("down".to_owned(), start);
    assert_eq!(store.state(start), State::Stale);
    let hour = start + Duration::from_secs(3_600);
    assert!(store.current(hour).is_some());
    let later = hour + Duration::from_millis(1);
    assert_eq!(store.state(later), State::Expired);
    assert!(store.current(later).is_none());
    store.install(fetched(&[key("a")]), later);
    assert_eq!(store.state(later), State::Fresh);
}

#[test]
fn the_generation_rises_only_when_a_key_leaves() {
    let now = clock::now();
    let store = store(now);
    let generation = |keys: &[Value]| {
        store.install(fetched(keys), now);
        let current = store.current(now).unwrap();
        current.as_ref().unwrap().generation
    };
    assert_eq!(generation(&[key("a")]), 0);
    assert_eq!(generation(&[key("a")]), 0, "the same");
    assert_eq!(generation(&[key("b"), key("a")]), 0, "one more");
    assert_eq!(generation(&[key("b")]), 1, "one less");
    assert_eq!(
        generation(&[STRANGER["p256"].jwk("b")]),
        2,
        "another under the same name"
    );
}

/// The next fetch that a request asks for brings `keys`.
async fn fetch_when_asked(store: &Store, keys: impl AsRef<[Value]>, now: Instant) {
    store.wake().notified().await;
    store.started();
    store.install(fetched(keys.as_ref()), now);
}

#[tokio::test]
async fn requests_with_an_unknown_kid_wait_for_one_fetch() {
    let now = clock::now();
    let store = store(now);
    store.install(fetched(&[key("old")]), now);
    let fetcher = fetch_when_asked(&store, [key("old"), key("new")], now);
    let (one, two, ()) = tokio::join!(store.newer("new", now), store.newer("other", now), fetcher);
    for answer in [one, two] {
        let Answer::Newer(loaded) = answer else {
            panic!("{answer:?}")
        };
        assert!(loaded.set.find(Some("new"), Algorithm::ES256).is_ok());
    }
    assert_eq!(store.fetches_ok(), 2);
    // A fetch that brings nothing new empties the bucket: no further wait, no further fetch.
    let fetcher = fetch_when_asked(&store, [key("old"), key("new")], now);
    let (third, ()) = tokio::join!(store.newer("third", now), fetcher);
    assert!(matches!(third, Answer::Newer(_)));
    assert!(matches!(store.newer("fourth", now).await, Answer::Absent));
    assert_eq!(store.fetches_ok(), 3);
}

/// The issuer publishes a key while it answers a fetch with the set of before.
#[tokio::test]
async fn a_key_published_during_a_fetch_is_found_by_the_next_one() {
    let now = clock::now();
    let store = store(now);
    store.install(fetched(&[key("old")]), now);
    store.started();
    let fetches = async {
        // The request has asked by now.
        tokio::task::yield_now().await;
        store.install(fetched(&[key("old")]), now);
        fetch_when_asked(&store, [key("old"), key("new")], now).await;
    };
    let (answer, ()) = tokio::join!(store.newer("new", now), fetches);
    let Answer::Newer(loaded) = answer else {
        panic!("{answer:?}")
    };
    assert!(loaded.set.find(Some("new"), Algorithm::ES256).is_ok());
}

/// Whoever invents names during a fetch causes one more, and no third.
#[tokio::test]
async fn unknown_kids_during_a_fetch_cause_one_more() {
    let now = clock::now();
    let store = store(now);
    store.install(fetched(&[key("old")]), now);
    store.started();
    let fetches = async {
        tokio::task::yield_now().await;
        store.install(fetched(&[key("old")]), now);
        fetch_when_asked(&store, [key("old")], now).await;
    };
    let (one, two, ()) = tokio::join!(store.newer("a", now), store.newer("b", now), fetches);
    for answer in [one, two] {
        // Either way it is 401: which, depends on who comes first.
        assert!(
            matches!(answer, Answer::Newer(_) | Answer::Absent),
            "{answer:?}"
        );
    }
    assert!(matches!(store.newer("c", now).await, Answer::Absent));
    assert_eq!(store.fetches_ok(), 3);
}

#[tokio::test]
async fn a_failed_fetch_makes_an_unknown_kid_unavailable_and_not_unknown() {
    let now = clock::now();
    let store = store(now);
    store.install(fetched(&[key("old")]), now);
    let wake = store.wake();
    let fetcher = async {
        wake.notified().await;
        store.started();
        store.note_failure("down".to_owned(), now);
    };
    let (answer, ()) = tokio::join!(store.newer("new", now), fetcher);
    assert!(matches!(answer, Answer::Unavailable));
    assert!(
        matches!(store.newer("new", now).await, Answer::Unavailable),
        "bucket empty"
    );
    assert!(store.current(now).is_some(), "known keys go on working");
    assert_eq!(
        store.last_error().as_deref().map(String::as_str),
        Some("down")
    );
}

#[test]
fn a_changed_issuer_keeps_the_keys_of_the_same_source() {
    let now = clock::now();
    let earlier = Arc::new(store(now));
    let later = store(now);
    later.adopt(&earlier, ALLOWED);
    assert_eq!(later.state(now), State::NeverLoaded);
    earlier.install(fetched(&[key("a"), KEYS["rsa"].jwk("r")]), now);
    later.adopt(&earlier, &[Algorithm::RS256]);
    let current = later.current(now).unwrap();
    assert_eq!(
        current.as_ref().unwrap().set.keys().len(),
        1,
        "judged by the new list"
    );
}
