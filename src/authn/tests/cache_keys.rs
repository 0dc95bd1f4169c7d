//! What is remembered of a credential counts for that credential, that policy, that key set and that endpoint, and for
//! nothing else: two that differ in any of them never meet, and what differs in nothing else is found again.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{NOW, at, authn, authorities, compile, file, file_issuer, key_set, token};
use crate::authn::cache::{Tokens, Verified, fingerprint, token_fingerprint};
use crate::authn::jwt::Window;
use crate::authn::{Authn, Issuer};
use crate::types::{Principal, Reason};
use crate::upstream::Pools;

fn part() -> impl Strategy<Value = Vec<u8>> {
    // Few letters and short words, so that parts that run into each other are met often.
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(0), Just(1), Just(8)], 0..4)
}

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(part(), 0..5)
}

fn print_of(parts: &[Vec<u8>]) -> [u8; 32] {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    fingerprint(&parts)
}

fn verified(generation: u64) -> Arc<Verified> {
    let claims = json!({ "exp": NOW });
    Arc::new(Verified {
        facts: Arc::default(),
        window: Window::of(claims.as_object().unwrap()).unwrap(),
        owner: crate::authn::answers::Owner::default(),
        typ: None,
        generation,
        length: 100,
    })
}

proptest! {
    #[test]
    fn fingerprints_are_equal_exactly_where_all_parts_are(one in parts(), other in parts()) {
        prop_assert_eq!(print_of(&one) == print_of(&other), one == other);
    }

    #[test]
    fn a_token_is_found_by_its_own_bytes_and_key_set_alone(
        kept in "[ab.]{0,4}", asked in "[ab.]{0,4}", kept_with in 0..3u64, asked_with in 0..3u64,
    ) {
        let tokens = Tokens::new(1 << 20);
        tokens.keep(token_fingerprint(&kept), verified(kept_with));
        let found = tokens.find(&token_fingerprint(&asked), asked_with).is_some();
        prop_assert_eq!(found, kept == asked && kept_with == asked_with);
    }
}

/// Everything that a route or a moment can hold against a token whose signature is good.
struct House {
    plain: Authn,
    typed: Authn,
}

fn house() -> House {
    let authorities = authorities(&file_issuer(&key_set(), ""));
    House {
        plain: authn("{ any = [\"main\"] }", &authorities),
        typed: authn(
            "{ any = [\"main\"], token_type = \"at+jwt\" }",
            &authorities,
        ),
    }
}

/// Has judged whatever earlier cases asked; a new one has judged nothing.
static WARM: LazyLock<Mutex<House>> = LazyLock::new(|| Mutex::new(house()));

fn verdict(house: &House, typed: bool, token: &str, now: u64) -> Result<Value, Reason> {
    let route = if typed { &house.typed } else { &house.plain };
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let pools = Pools::new();
    let judged = runtime.block_on(route.identify(&pools, &headers, at(now)));
    judged
        .map(|caller: Principal| json!([caller.facts.user, caller.facts.claims]))
        .map_err(|why| why.reason())
}

/// Signed once: two signatures of one text differ, and would be two tokens.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut tokens = Vec::new();
    for typ in ["at+jwt", "JWT"] {
        for user in ["u1", "u2"] {
            for life in [10, 600] {
                let claims = json!({
                    "iss": super::support::ISSUER, "aud": "billing", "sub": user,
                    "iat": NOW, "exp": NOW + life,
                });
                let header = json!({ "alg": "ES256", "kid": "p256", "typ": typ });
                tokens.push(token(&header, &claims));
            }
        }
    }
    tokens
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_verdict_from_the_cache_is_the_verdict_without_one(
        which in 0..8usize, typed: bool, now in NOW - 60..NOW + 700,
    ) {
        let token = &TOKENS[which];
        let warm = verdict(&WARM.lock(), typed, token, now);
        prop_assert_eq!(warm, verdict(&house(), typed, token, now));
    }
}

/// Every key of an issuer that decides about tokens, or tells what they mean.
const POLICIES: [&str; 16] = [
    "url = \"https://other.example.com\"",
    "audiences = [\"billing\", \"other\"]",
    "algorithms = [\"ES256\"]",
    "header = \"x-token\"",
    "token_type = \"at+jwt\"",
    "required_claims = [\"org\"]",
    "leeway = \"1s\"",
    "max_token = \"1KiB\"",
    "token_cache = \"1MiB\"",
    "longest_token = \"1h\"",
    "user_claim = \"email\"",
    "org_claim = \"tenant\"",
    "email_claim = \"mail\"",
    "roles_claim = \"groups\"",
    "scopes_claim = \"scp\"",
    "[issuer.main.introspection]\nurl = \"https://auth.example.com/i\"\nclient_id = \"edge\"\nclient_secret = { file = \"SECRET\" }",
];

fn with_policy(keys: &str, policy: &str) -> String {
    let name = policy.split(' ').next().unwrap_or_default();
    let lines = [
        "url = \"https://auth.example.com\"",
        "audiences = [\"billing\"]",
        keys,
    ];
    let lines = lines
        .iter()
        .filter(|line| !line.starts_with(&format!("{name} =")));
    let lines: Vec<&str> = lines.copied().chain([policy]).collect();
    format!("[issuer.main]\n{}\n", lines.join("\n"))
}

#[test]
fn tokens_verified_under_one_policy_are_unknown_under_any_other() {
    let keys = format!("jwks_file = \"{}\"", file(key_set().to_string()));
    let secret = file("a secret of the gateway");
    let before = authorities(&with_policy(&keys, ""));
    let issuer = &before.issuers["main"];
    issuer.tokens.keep(token_fingerprint("a.b.c"), verified(0));
    for policy in POLICIES {
        let toml = with_policy(&keys, &policy.replace("SECRET", &secret));
        let (after, problems) = compile(&toml, Some(&before));
        assert_eq!(problems, Vec::<String>::new(), "{policy}");
        assert!(!knows(&after.issuers["main"]), "{policy}");
    }
    let same = format!("# another comment\n{}", with_policy(&keys, ""));
    let (after, _) = compile(&same, Some(&before));
    assert!(knows(&after.issuers["main"]), "nothing has changed");
}

fn knows(issuer: &Issuer) -> bool {
    issuer.tokens.find(&token_fingerprint("a.b.c"), 0).is_some()
}

fn asking(url: &str, client: &str) -> Arc<Issuer> {
    let secret = file("a secret of the gateway");
    let toml = format!(
        "[issuer.main]\nurl = \"x\"\naudiences = [\"y\"]\n[issuer.main.introspection]\n\
         tokens = \"all\"\nurl = \"{url}\"\nclient_id = \"{client}\"\nclient_secret = {{ file = \"{secret}\" }}\n"
    );
    Arc::clone(&authorities(&toml).issuers["main"])
}

/// The endpoint, the client and the token: where any of them differs, another answer is kept.
#[test]
fn an_answer_counts_for_its_endpoint_client_and_token_alone() {
    let mut known = Vec::new();
    for url in [
        "https://a.example/i",
        "https://a.example/ia",
        "https://b.example/i",
    ] {
        for client in ["a", "aa"] {
            let issuer = asking(url, client);
            let same = asking(url, client);
            let print = |issuer: &Issuer, token: &str| {
                issuer.introspection.as_ref().unwrap().fingerprint(token)
            };
            for token in ["a", "aa", "b"] {
                let made = print(&issuer, token);
                assert_eq!(made, print(&same, token), "the same question");
                assert!(!known.contains(&made), "{url} {client} {token}");
                known.push(made);
            }
        }
    }
}
