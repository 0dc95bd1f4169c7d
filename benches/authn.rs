//! What it costs to find out who the caller is: a token that is new, by algorithm; one that was verified before, by how
//! many issuers and tokens there are; and a rule over its claims. In memory, through the same call as every request.
//!
//! `cargo bench --bench authn`, on a quiet machine. What is fast here can still be slow in a proxy: see `load/`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench that cannot run must say so; its groups are made by a macro"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule::authn::{Authn, Authorities};
use vestibule::authz::{Asked, Rules};
use vestibule::client_ip::ClientIp;
use vestibule::config::{Config, KeyPath, Problems, Route};
use vestibule::types::{AuthMethod, Principal, PrincipalFacts, clock};
use vestibule::upstream::Pools;

/// How many tokens are judged before the gateway forgets them all: each must be new to it.
const NEW: u64 = 256;

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::HS256,
];

/// A token that was never seen costs a signature; everything else of it should be small beside that.
fn new_tokens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token_new");
    for algorithm in ALGORITHMS {
        let issuer = Issuer::of(algorithm);
        let tokens: Vec<HeaderMap> = (0..NEW).map(|user| issuer.bearer(0, user)).collect();
        group.bench_function(format!("{algorithm:?}"), |bencher| {
            bencher.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for turn in 0..count.div_ceil(NEW) {
                    let house = issuer.house(1);
                    let left = (count - turn * NEW).min(NEW);
                    let started = clock::now();
                    for headers in tokens.iter().zip(0..left).map(|(token, _)| token) {
                        house.identify(headers);
                    }
                    took += started.elapsed();
                }
                took
            });
        });
    }
    group.finish();
}

/// A token that was verified before, among so many others. The bound is 2 microseconds.
fn known_tokens(criterion: &mut Criterion) {
    let issuer = Issuer::of(Algorithm::HS256);
    let mut group = criterion.benchmark_group("token_known");
    for count in measured([1, 10, 1_000, 100_000]) {
        let house = issuer.house(1);
        let tokens: Vec<HeaderMap> = (0..count).map(|user| issuer.bearer(0, user)).collect();
        for headers in &tokens {
            house.identify(headers);
        }
        let mut next = tokens.iter().cycle();
        group.bench_function(BenchmarkId::new("tokens", count), |bencher| {
            bencher.iter(|| house.identify(next.next().unwrap()));
        });
    }
    group.finish();
}

/// The same where a route names many issuers: whose token it is must be found out without asking them all.
fn many_issuers(criterion: &mut Criterion) {
    let issuer = Issuer::of(Algorithm::HS256);
    let mut group = criterion.benchmark_group("token_known");
    for count in measured([1, 4, 10, 100, 1_000]) {
        let house = issuer.house(count);
        let last = issuer.bearer(count - 1, 0);
        house.identify(&last);
        group.bench_function(BenchmarkId::new("issuers", count), |bencher| {
            bencher.iter(|| house.identify(&last));
        });
    }
    group.finish();
}

/// A rule over claims alone is kept with the verified token; the same rule is evaluated for each request where it looks at
/// the request as well.
fn rules(criterion: &mut Criterion) {
    const OVER_CLAIMS: &str = "claims.org == 'acme' && 'writer' in claims.roles && claims.aal >= 2";
    let claims = json!({ "org": "acme", "roles": ["reader", "writer"], "aal": 2 });
    let caller = Principal {
        method: AuthMethod::Jwt,
        source: "main".into(),
        facts: Arc::new(PrincipalFacts {
            claims: claims.as_object().unwrap().clone(),
            ..PrincipalFacts::default()
        }),
        beside: None,
    };
    let headers = HeaderMap::new();
    let asked = Asked {
        client: ClientIp::new([127, 0, 0, 1].into()),
        method: &Method::GET,
        host: "api.example.com",
        path: "/v1/orders",
        client_cert: None,
        headers: &headers,
    };
    let mut group = criterion.benchmark_group("rule");
    for (name, when) in [
        ("over_claims_alone", OVER_CLAIMS.to_owned()),
        (
            "over_the_request_too",
            format!("{OVER_CLAIMS} && request.method == 'GET'"),
        ),
    ] {
        let route = format!("auth = {{ any = [\"main\"], when = \"{when}\" }}");
        let route: Route = toml::from_str(&route).unwrap();
        let mut problems = Problems::default();
        let rules = Rules::compile(&route, &KeyPath::root(), &mut problems).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(rules.decide(&caller, &asked)).unwrap());
        });
    }
    group.finish();
}

/// As a test, which the gate runs, that it works is enough.
fn measured<const COUNT: usize>(sizes: [u64; COUNT]) -> impl Iterator<Item = u64> {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    sizes
        .into_iter()
        .filter(move |size| is_measured || *size <= 10)
}

/// An issuer's key, as a file that the configuration names and as what signs.
struct Issuer {
    algorithm: Algorithm,
    signing: EncodingKey,
    folder: TempDir,
    keys: String,
}

impl Issuer {
    fn of(algorithm: Algorithm) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let path = file.display();
        let (signing, content, keys) = if algorithm == Algorithm::HS256 {
            let secret = b"a secret of at least thirty-two bytes".to_vec();
            let keys = format!("secret = {{ file = \"{path}\" }}");
            (EncodingKey::from_secret(&secret), secret, keys)
        } else {
            let signing = private_key(algorithm);
            let public = Jwk::from_encoding_key(&signing, algorithm).unwrap();
            let mut public: Value = serde_json::to_value(public).unwrap();
            public["kid"] = "key".into();
            let set = json!({ "keys": [public] }).to_string().into_bytes();
            (signing, set, format!("jwks_file = \"{path}\""))
        };
        std::fs::write(&file, content).unwrap();
        let mine_alone = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mine_alone).unwrap();
        Self {
            algorithm,
            signing,
            folder,
            keys,
        }
    }

    /// A request with a token of the issuer at `place`.
    fn bearer(&self, place: u64, user: u64) -> HeaderMap {
        let mut header = Header::new(self.algorithm);
        header.kid = (self.algorithm != Algorithm::HS256).then(|| "key".to_owned());
        let now = clock::unix_seconds(clock::wall());
        let claims = json!({
            "iss": url(place), "aud": "api", "sub": format!("user-{user}"), "iat": now, "exp": now + 3_600,
            "org": "acme", "email": "someone@example.com", "roles": ["reader", "writer"], "scope": "read write",
        });
        let encode = |part: String| URL_SAFE_NO_PAD.encode(part);
        let header = serde_json::to_string(&header).unwrap();
        let message = format!("{}.{}", encode(header), encode(claims.to_string()));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, self.algorithm).unwrap();
        let value = format!("Bearer {message}.{signature}");
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&value).unwrap())])
    }

    /// A route that names `count` issuers with this key.
    fn house(&self, count: u64) -> House {
        assert!(self.folder.path().exists());
        let mut text = String::new();
        for place in 0..count {
            let (url, algorithm, keys) = (url(place), self.algorithm, &self.keys);
            writeln!(
                text,
                "[issuer.i{place}]\nurl = \"{url}\"\naudiences = [\"api\"]\nalgorithms = [\"{algorithm:?}\"]\ntoken_cache = \"1GiB\"\n{keys}"
            )
            .unwrap();
        }
        let names: Vec<String> = (0..count).map(|place| format!("i{place}")).collect();
        let config: Config = toml::from_str(&text).unwrap();
        let route: Route = toml::from_str(&format!("auth = {{ any = {names:?} }}")).unwrap();
        let mut problems = Problems::default();
        let authorities = Authorities::compile(&config, &BTreeMap::new(), None, &mut problems);
        let authn = Authn::compile(&route.auth, &KeyPath::root(), &authorities, &mut problems);
        let problems = problems.into_errors();
        assert!(problems.is_empty(), "{problems:?}");
        House {
            authn: authn.unwrap(),
            pools: Pools::new(),
        }
    }
}

struct House {
    authn: Authn,
    pools: Pools,
}

impl House {
    /// Nobody is asked, so the answer is there at once.
    fn identify(&self, headers: &HeaderMap) {
        let mut context = Context::from_waker(Waker::noop());
        let identified = pin!(self.authn.identify(&self.pools, headers, clock::wall()));
        let Poll::Ready(identified) = identified.poll(&mut context) else {
            panic!("it waits for somebody");
        };
        black_box(identified.unwrap());
    }
}

fn url(place: u64) -> String {
    format!("https://issuer-{place}.example.com")
}

fn private_key(algorithm: Algorithm) -> EncodingKey {
    let random = SystemRandom::new();
    let elliptic = |curve| EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
            EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
        }
        Algorithm::ES256 => {
            EncodingKey::from_ec_der(elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING).as_ref())
        }
        Algorithm::ES384 => {
            EncodingKey::from_ec_der(elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING).as_ref())
        }
        _ => EncodingKey::from_ed_der(Ed25519KeyPair::generate_pkcs8v1(&random).unwrap().as_ref()),
    }
}

criterion_group!(benches, new_tokens, known_tokens, many_issuers, rules);
criterion_main!(benches);
