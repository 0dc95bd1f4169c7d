//! What a logout ends, whoever is named beside the one that it concerns.

use serde_json::json;

use super::support::{NOW, at, authorities, b64, file, file_issuer, good_token, key_set};
use crate::authn::revoke::Ended;
use crate::authn::{Authorities, Revocation, Revokes};
use crate::config::{KeyPath, Problems, Route};
use crate::types::Principal;

fn asks_about_all(name: &str) -> String {
    let secret = file("a secret of the gateway");
    format!(
        "[issuer.{name}]\nurl = \"https://{name}.example\"\naudiences = [\"x\"]\n[issuer.{name}.introspection]\n\
         tokens = \"all\"\nurl = \"https://{name}.example/i\"\nclient_id = \"edge\"\n\
         client_secret = {{ file = \"{secret}\" }}\n"
    )
}

fn revokes(any: &str, authorities: &Authorities) -> Revokes {
    let route = format!("auth = \"none\"\nupstream = \"api\"\nrevokes = {{ any = {any} }}");
    let route: Route = toml::from_str(&route).unwrap();
    let mut problems = Problems::default();
    let written = route.revokes.unwrap();
    let revokes = Revokes::compile(&written, &KeyPath::root(), authorities, &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.into_errors());
    revokes.unwrap()
}

async fn ended(revokes: &Revokes, token: &str) -> Vec<Revocation> {
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let nobody = Principal::anonymous();
    let ending = revokes.watch(&headers, &nobody, at(NOW));
    ending.await.revocations().to_vec()
}

/// Whoever is asked about every token of its own has nothing to say of those of others.
#[tokio::test]
async fn a_logout_reaches_the_issuer_of_the_token_and_no_other() {
    let toml = format!(
        "{}\n{}",
        asks_about_all("asked"),
        file_issuer(&key_set(), "")
    );
    let authorities = authorities(&toml);
    for any in ["[\"asked\", \"main\"]", "[\"main\", \"asked\"]"] {
        let revokes = revokes(any, &authorities);
        let told = ended(&revokes, &good_token()).await;
        assert_eq!(told.len(), 1, "{any}");
        assert_eq!(&*told[0].source, "main", "{any}");
        assert!(matches!(told[0].what, Ended::Token(_)), "{any}");

        let theirs = json!({ "iss": "https://asked.example", "sub": "u1" }).to_string();
        let theirs = format!("{}.{}.AAAA", b64(r#"{"alg":"ES256"}"#), b64(theirs));
        for token in [theirs.as_str(), "opaque"] {
            let told = ended(&revokes, token).await;
            assert_eq!(told.len(), 1, "{any}: {token}");
            assert_eq!(&*told[0].source, "asked", "{any}: {token}");
            assert!(matches!(told[0].what, Ended::Answer(_)), "{any}: {token}");
        }
    }
}

/// Issuers are found by the name that the token states: a thousand cost what one does.
#[tokio::test]
async fn among_a_thousand_issuers_the_one_is_found_and_strangers_are_not() {
    let keys = file(key_set().to_string());
    let mut toml = file_issuer(&key_set(), "");
    let mut names = vec!["\"main\"".to_owned()];
    for at in 0..999 {
        toml.push_str(&format!(
            "[issuer.i{at}]\nurl = \"https://i{at}.example\"\naudiences = [\"billing\"]\njwks_file = \"{keys}\"\n"
        ));
        names.push(format!("\"i{at}\""));
    }
    let authorities = authorities(&toml);
    let revokes = revokes(&format!("[{}]", names.join(",")), &authorities);
    let told = ended(&revokes, &good_token()).await;
    assert_eq!(told.len(), 1);
    assert_eq!(&*told[0].source, "main");
    let long = "a".repeat(9_000);
    for stranger in ["a.b.c", "opaque", &format!("{long}.{long}.c")] {
        assert_eq!(ended(&revokes, stranger).await, [], "{stranger}");
    }
}
