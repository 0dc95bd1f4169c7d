//! Forged tokens, line by line of behaviour.md 2.4; each over the header and over the cookie.

use serde_json::{Value, json};

use super::support::{
    ISSUER, KEYS, NOW, STRANGER, Signer, at, authn, authorities, b64, file, file_issuer,
    good_claims, good_token, identify, key_set, token, token_of,
};
use crate::authn::{Authn, Authorities};
use crate::types::{AuthMethod, Principal, Reason};

/// The trusted issuer, for a route that takes its tokens from the header, and one that takes them from a cookie.
struct House {
    authorities: Authorities,
    header: Authn,
    cookie: Authn,
}

fn house(more: &str) -> House {
    house_of(&file_issuer(&key_set(), more))
}

fn house_of(issuer: &str) -> House {
    let toml = format!("{issuer}\n[session.web]\ncookie = \"at\"\nissuer = \"main\"\n");
    let authorities = authorities(&toml);
    House {
        header: authn("{ any = [\"main\"] }", &authorities),
        cookie: authn("{ any = [\"web\"] }", &authorities),
        authorities,
    }
}

impl House {
    async fn check(&self, what: &str, token: &str, expected: Result<(), Reason>) {
        let bearer = identify(
            &self.header,
            "authorization",
            &format!("Bearer {token}"),
            at(NOW),
        )
        .await;
        assert_eq!(bearer.map(drop), expected, "header: {what}");
        let cookie = identify(&self.cookie, "cookie", &format!("a=b; at={token}"), at(NOW)).await;
        assert_eq!(cookie.map(drop), expected, "cookie: {what}");
    }

    async fn refuses(&self, what: &str, token: &str, reason: Reason) {
        self.check(what, token, Err(reason)).await;
    }

    async fn accepts(&self, what: &str, token: &str) -> Principal {
        self.check(what, token, Ok(())).await;
        let bearer = format!("Bearer {token}");
        identify(&self.header, "authorization", &bearer, at(NOW))
            .await
            .unwrap()
    }
}

/// Header JSON as it stands, with good claims, signed by the P-256 key.
fn with_header(header: &str) -> String {
    token_of(header, good_claims().to_string(), "ES256", &KEYS["p256"])
}

/// Payload as it stands under a good header.
fn with_payload(payload: impl AsRef<[u8]>) -> String {
    token_of(
        r#"{"alg":"ES256","kid":"p256"}"#,
        payload,
        "ES256",
        &KEYS["p256"],
    )
}

/// Good claims, changed.
fn with_claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = good_claims();
    change(&mut claims);
    with_payload(claims.to_string())
}

fn without(claim: &str) -> String {
    with_claims(|claims| drop(claims.as_object_mut().unwrap().remove(claim)))
}

#[tokio::test]
async fn a_good_token_tells_who_the_caller_is() {
    let house = house("");
    let principal = house.accepts("good", &good_token()).await;
    assert_eq!(principal.method, AuthMethod::Jwt);
    assert_eq!(&*principal.source, "main");
    assert_eq!(principal.facts.user, "u1");
    assert_eq!(principal.facts.org.as_deref(), Some("o1"));
    assert_eq!(principal.facts.expires_at, Some(at(NOW + 600)));
    let again = house.accepts("from the cache", &good_token()).await;
    assert_eq!(again.facts.user, "u1");
}

#[tokio::test]
async fn every_allowed_algorithm_is_verified() {
    let all =
        r#"algorithms = ["RS256","RS384","RS512","PS256","PS384","PS512","ES256","ES384","EdDSA"]"#;
    let house = house(all);
    for (alg, kid) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
    ] {
        let good = token(&json!({ "alg": alg, "kid": kid }), &good_claims());
        house.accepts(alg, &good).await;
        let stranger = token_of(
            json!({ "alg": alg, "kid": kid }).to_string(),
            good_claims().to_string(),
            alg,
            &STRANGER[kid],
        );
        house.refuses(alg, &stranger, Reason::TokenSignature).await;
    }
}

#[tokio::test]
async fn algorithm_lines() {
    let house = house("");
    let unsigned = |alg: &str| {
        format!(
            "{}.{}.",
            b64(format!(r#"{{"alg":"{alg}"}}"#)),
            b64(good_claims().to_string())
        )
    };
    for alg in ["none", "None", "NONE", "nOnE", "\\u006eone", "", "none "] {
        house
            .refuses(alg, &unsigned(alg), Reason::TokenAlgorithm)
            .await;
        let signed = with_header(&format!(r#"{{"alg":"{alg}","kid":"p256"}}"#));
        house.refuses(alg, &signed, Reason::TokenAlgorithm).await;
    }
    for alg in [
        "es256", "ES256K", "ES512", "RS1", "HS1", "Ed25519", "dir", "RSA-OAEP",
    ] {
        let odd = with_header(&format!(r#"{{"alg":"{alg}","kid":"p256"}}"#));
        house.refuses(alg, &odd, Reason::TokenAlgorithm).await;
    }
    for alg in ["null", "1", "[\"ES256\"]", "{}", "true"] {
        let odd = with_header(&format!(r#"{{"alg":{alg},"kid":"p256"}}"#));
        house.refuses(alg, &odd, Reason::TokenHeader).await;
    }
    house
        .refuses(
            "no alg",
            &with_header(r#"{"kid":"p256"}"#),
            Reason::TokenHeader,
        )
        .await;

    let not_allowed = token(&json!({ "alg": "RS512", "kid": "rsa" }), &good_claims());
    house
        .refuses("RS512 is not listed", &not_allowed, Reason::TokenAlgorithm)
        .await;
    let other_family = with_header(r#"{"alg":"RS256","kid":"p256"}"#);
    house
        .refuses("the key says ES256", &other_family, Reason::TokenAlgorithm)
        .await;
}

#[tokio::test]
async fn the_algorithm_of_the_key_entry_decides() {
    let mut entry = KEYS["rsa"].jwk("rsa");
    entry["alg"] = "PS256".into();
    let house = house_of(&file_issuer(&json!({ "keys": [entry] }), ""));
    house
        .accepts(
            "PS256",
            &token(&json!({ "alg": "PS256", "kid": "rsa" }), &good_claims()),
        )
        .await;
    let other = token(&json!({ "alg": "RS256", "kid": "rsa" }), &good_claims());
    house
        .refuses(
            "RS256 is allowed, but not for this key",
            &other,
            Reason::TokenAlgorithm,
        )
        .await;
}

#[tokio::test]
async fn a_public_key_is_never_a_shared_secret() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair;
    let house = house("");
    let Signer::Rsa(rsa) = &KEYS["rsa"] else {
        unreachable!()
    };
    let spki: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
        .into_bytes()
    };
    let jwk = KEYS["rsa"].jwk("rsa");
    let secrets = [
        ("PEM", pem("PUBLIC KEY", spki.as_ref())),
        (
            "PEM without its last line end",
            pem("PUBLIC KEY", spki.as_ref()).trim_ascii().to_vec(),
        ),
        ("PKCS#1 PEM", pem("RSA PUBLIC KEY", &KEYS["rsa"].public())),
        ("DER", spki.as_ref().to_vec()),
        ("PKCS#1 DER", KEYS["rsa"].public()),
        ("JWK", jwk.to_string().into_bytes()),
        ("n", jwk["n"].as_str().unwrap().as_bytes().to_vec()),
        ("nothing", Vec::new()),
    ];
    for (what, secret) in secrets {
        for header in [r#"{"alg":"HS256","kid":"rsa"}"#, r#"{"alg":"HS256"}"#] {
            let forged = token_of(
                header,
                good_claims().to_string(),
                "HS256",
                &Signer::Secret(secret.clone()),
            );
            house.refuses(what, &forged, Reason::TokenAlgorithm).await;
        }
    }
}

#[tokio::test]
async fn shape_lines_of_the_header() {
    let house = house("");
    for extension in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""\u0063rit":["b64"],"b64":false"#,
        r#""b64":false"#,
        r#""b64":true"#,
        r#""zip":"DEF""#,
        r#""zip":null"#,
        r#""enc":"A256GCM""#,
        r#""cty":"JWT""#,
        r#""cty":"jwt""#,
        r#""cty":"application/jwt""#,
        r#""cty":1"#,
        r#""kid":"p256""#,
        r#""typ":7"#,
        r#""x":{"y":1,"y":1}"#,
    ] {
        let odd = with_header(&format!(r#"{{"alg":"ES256","kid":"p256",{extension}}}"#));
        house.refuses(extension, &odd, Reason::TokenHeader).await;
    }
    for header in [
        "",
        "[]",
        "null",
        "\"ES256\"",
        "{",
        r#"{"alg":"ES256","kid":"p256"}x"#,
        r#"{"alg":"ES256","kid":"p256"}{}"#,
        r#"{"alg":"ES256","\u0061lg":"ES256","kid":"p256"}"#,
        r#"{"alg":"ES256","kid":["p256"]}"#,
        r#"{"alg":"ES256","kid":null}"#,
    ] {
        let odd = with_header(header);
        let reason = if header.is_empty() {
            Reason::CredentialMalformed
        } else {
            Reason::TokenHeader
        };
        house.refuses(header, &odd, reason).await;
    }
    let odd = token_of(
        b"{\"alg\":\"ES256\",\"kid\":\"\xff\"}",
        good_claims().to_string(),
        "ES256",
        &KEYS["p256"],
    );
    house
        .refuses("invalid UTF-8", &odd, Reason::TokenHeader)
        .await;
    let deep = format!(
        r#"{{"alg":"ES256","kid":"p256","x":{}1{}}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    house
        .refuses("17 levels", &with_header(&deep), Reason::TokenHeader)
        .await;
}

#[tokio::test]
async fn keys_in_the_header_are_never_used() {
    let house = house("");
    let jwk = STRANGER["p256"].jwk("p256");
    for name in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"http://127.0.0.1:1/keys""#.to_owned(),
        r#""x5u":"http://127.0.0.1:1/chain""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"p256",{name}}}"#);
        house.accepts(&name, &with_header(&header)).await;
        let forged = token_of(
            &header,
            good_claims().to_string(),
            "ES256",
            &STRANGER["p256"],
        );
        house.refuses(&name, &forged, Reason::TokenSignature).await;
    }
}

#[tokio::test]
async fn shape_lines_of_the_parts() {
    let house = house("");
    let good = good_token();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    for odd in [
        header.to_owned(),
        message.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{payload}.{signature}AAA"),
    ] {
        house.refuses(&odd, &odd, Reason::CredentialMalformed).await;
    }
    // 64 bytes of signature leave four bits in the last of 86 characters; they must be zero.
    let last = signature.as_bytes()[85];
    let next = if last == b'A' {
        'B'
    } else {
        char::from(last + 1)
    };
    let stray = format!("{message}.{}{next}", &signature[..85]);
    house
        .refuses("stray bits", &stray, Reason::CredentialMalformed)
        .await;
    let standard = format!("{header}.{payload}.{}+/", &signature[..84]);
    house
        .refuses("the other alphabet", &standard, Reason::CredentialMalformed)
        .await;
    let padded = format!("{good}==");
    house
        .refuses("padding", &padded, Reason::CredentialMalformed)
        .await;
}

#[tokio::test]
async fn a_token_in_another_serialisation_is_refused() {
    let house = house("");
    let json = json!({ "payload": "e30", "protected": "e30", "signature": "AA" }).to_string();
    let bearer = identify(
        &house.header,
        "authorization",
        &format!("Bearer {json}"),
        at(NOW),
    )
    .await;
    assert_eq!(bearer.map(drop), Err(Reason::CredentialMalformed));
    let jwe = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOaw.48V1.5eym.XFBo";
    house.refuses("JWE", jwe, Reason::CredentialMalformed).await;
}

#[tokio::test]
async fn shape_lines_of_the_payload() {
    let house = house("");
    let good = good_claims().to_string();
    let twice = good.replacen('{', r#"{"sub":"u2","#, 1);
    let twice_deep = good.replacen('{', r#"{"x":[{"a":1,"\u0061":2}],"#, 1);
    let deep = good.replacen(
        '{',
        &format!(r#"{{"x":{}1{},"#, "[".repeat(16), "]".repeat(16)),
        1,
    );
    let mut not_utf8 = good.replacen("u1", "u?", 1).into_bytes();
    let place = not_utf8.iter().position(|byte| *byte == b'?').unwrap();
    not_utf8[place] = 0xff;
    for (what, payload) in [
        ("a list", format!("[{good}]").into_bytes()),
        ("a string", b"\"x\"".to_vec()),
        ("null", b"null".to_vec()),
        ("no JSON", b"foo".to_vec()),
        ("nothing", Vec::new()),
        ("trailing bytes", format!("{good}x").into_bytes()),
        ("two objects", format!("{good}{{}}").into_bytes()),
        ("a name twice", twice.into_bytes()),
        ("a name twice, deep and escaped", twice_deep.into_bytes()),
        ("17 levels", deep.into_bytes()),
        ("invalid UTF-8", not_utf8),
        (
            "a number out of range",
            good.replacen("600", "600e999", 1)
                .replacen("1800000600", "1e999", 1)
                .into_bytes(),
        ),
    ] {
        house
            .refuses(what, &with_payload(payload), Reason::CredentialMalformed)
            .await;
    }
}

#[tokio::test]
async fn a_token_over_the_cap_is_refused_unread() {
    let house = house("");
    let huge = with_claims(|claims| claims["x"] = "y".repeat(16 * 1024).into());
    house
        .refuses("over 16 KiB", &huge, Reason::TokenTooLarge)
        .await;
    house
        .refuses(
            "dots alone",
            &".".repeat(16 * 1024 + 1),
            Reason::TokenTooLarge,
        )
        .await;
    let large = with_claims(|claims| claims["x"] = "y".repeat(9 * 1024).into());
    house.accepts("9 KiB of role claims", &large).await;
    let small = self::house("max_token = \"100B\"");
    small
        .refuses("over a cap of 100", &good_token(), Reason::TokenTooLarge)
        .await;
}

#[tokio::test]
async fn claim_lines_of_time() {
    let house = house("");
    house
        .refuses("no exp", &without("exp"), Reason::TokenClaims)
        .await;
    let refused: [(&str, Value, Reason); 20] = [
        ("exp", json!(NOW - 30), Reason::TokenExpired),
        ("exp", json!(0), Reason::TokenExpired),
        ("exp", json!(-1), Reason::TokenExpired),
        ("exp", json!((NOW - 30) as f64 - 0.5), Reason::TokenExpired),
        ("exp", json!("1800000600"), Reason::TokenClaims),
        ("exp", json!(null), Reason::TokenClaims),
        ("exp", json!([NOW + 600]), Reason::TokenClaims),
        ("exp", json!({}), Reason::TokenClaims),
        ("exp", json!(true), Reason::TokenClaims),
        ("exp", json!(9_007_199_254_740_993_u64), Reason::TokenClaims),
        ("exp", json!(u64::MAX), Reason::TokenClaims),
        ("exp", json!(i64::MIN), Reason::TokenClaims),
        ("exp", json!(1e300), Reason::TokenClaims),
        ("nbf", json!(NOW + 31), Reason::TokenNotYetValid),
        ("nbf", json!("0"), Reason::TokenClaims),
        ("nbf", json!(null), Reason::TokenClaims),
        ("iat", json!(NOW + 31), Reason::TokenNotYetValid),
        ("iat", json!(9e15), Reason::TokenNotYetValid),
        ("iat", json!("0"), Reason::TokenClaims),
        ("iat", json!(1e16), Reason::TokenClaims),
    ];
    for (claim, value, reason) in refused {
        let odd = with_claims(|claims| claims[claim] = value.clone());
        house
            .refuses(&format!("{claim} = {value}"), &odd, reason)
            .await;
    }
    for (claim, value) in [
        ("exp", json!(NOW - 29)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("exp", json!(9_007_199_254_740_992_u64)),
        ("nbf", json!(NOW + 30)),
        ("nbf", json!(-5)),
        ("iat", json!(NOW + 30)),
    ] {
        let fine = with_claims(|claims| claims[claim] = value.clone());
        house.accepts(&format!("{claim} = {value}"), &fine).await;
    }
}

#[tokio::test]
async fn claim_lines_of_issuer_audience_and_subject() {
    let house = house("");
    for value in [
        json!(null),
        json!([ISSUER]),
        json!(""),
        json!(format!("{ISSUER}/")),
        json!("https://AUTH.example.com"),
        json!("https://evil.example"),
        json!({ "iss": ISSUER }),
    ] {
        let odd = with_claims(|claims| claims["iss"] = value.clone());
        house
            .refuses(&format!("iss = {value}"), &odd, Reason::TokenIssuer)
            .await;
    }
    house
        .refuses("no iss", &without("iss"), Reason::TokenIssuer)
        .await;
    for value in [
        json!(null),
        json!("other"),
        json!([]),
        json!(["other"]),
        json!(["billing", 1]),
        json!([["billing"]]),
        json!({ "billing": 1 }),
        json!(1),
        json!(""),
        json!("Billing"),
        json!("billing "),
    ] {
        let odd = with_claims(|claims| claims["aud"] = value.clone());
        house
            .refuses(&format!("aud = {value}"), &odd, Reason::TokenAudience)
            .await;
    }
    house
        .refuses("no aud", &without("aud"), Reason::TokenAudience)
        .await;
    house
        .accepts(
            "aud in a list",
            &with_claims(|claims| claims["aud"] = json!(["x", "billing"])),
        )
        .await;
    for value in [json!(null), json!(""), json!(7), json!(["u1"])] {
        let odd = with_claims(|claims| claims["sub"] = value.clone());
        house
            .refuses(&format!("sub = {value}"), &odd, Reason::TokenClaims)
            .await;
    }
    house
        .refuses("no sub", &without("sub"), Reason::TokenClaims)
        .await;
}

/// Whatever stands for the user must say who that is, as `sub` must.
#[tokio::test]
async fn a_user_without_a_name_is_nobody() {
    let house = house("user_claim = \"account.id\"");
    let with = |id: Value| with_claims(|claims| claims["account"] = json!({ "id": id }));
    for id in [
        json!(null),
        json!(""),
        json!([]),
        json!(["u1"]),
        json!({ "u1": 1 }),
        json!(true),
    ] {
        let what = id.to_string();
        house.refuses(&what, &with(id), Reason::TokenClaims).await;
    }
    house
        .refuses("none", &good_token(), Reason::TokenClaims)
        .await;
    for (id, user) in [(json!("u2"), "u2"), (json!(4711), "4711")] {
        let principal = house.accepts(user, &with(id)).await;
        assert_eq!(principal.facts.user, user);
    }
}

#[tokio::test]
async fn required_claims_must_exist() {
    let house = house("required_claims = [\"org\", \"amr.level\"]");
    let fine = with_claims(|claims| claims["amr"] = json!({ "level": 2 }));
    house.accepts("both", &fine).await;
    house
        .refuses("none", &good_token(), Reason::TokenClaims)
        .await;
    let null = with_claims(|claims| claims["amr"] = json!({ "level": null }));
    house.refuses("null", &null, Reason::TokenClaims).await;
}

#[tokio::test]
async fn an_issuer_without_audiences_takes_tokens_without_one_only() {
    let issuer = file_issuer(&key_set(), "required_claims = [\"org\"]")
        .replace("audiences = [\"billing\"]", "audiences = []");
    let house = house_of(&issuer);
    house.accepts("none", &without("aud")).await;
    house
        .refuses("one", &good_token(), Reason::TokenAudience)
        .await;
}

#[tokio::test]
async fn a_token_type_can_be_demanded() {
    let typed =
        |typ: &str| with_header(&format!(r#"{{"alg":"ES256","kid":"p256","typ":"{typ}"}}"#));
    let strict = house("token_type = \"at+jwt\"");
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        strict.accepts(typ, &typed(typ)).await;
    }
    for typ in [
        "JWT",
        "",
        "logout+jwt",
        "at+jwt ",
        "application/application/at+jwt",
        "text/at+jwt",
    ] {
        strict.refuses(typ, &typed(typ), Reason::TokenType).await;
    }
    let none = with_header(r#"{"alg":"ES256","kid":"p256"}"#);
    strict.refuses("no typ", &none, Reason::TokenType).await;

    let house = house("");
    for typ in ["JWT", "jwt", "at+jwt", "JOSE"] {
        house.accepts(typ, &typed(typ)).await;
    }
    house.accepts("no typ", &none).await;
    for typ in ["logout+jwt", "dpop+jwt", "application/secevent+jwt"] {
        house.refuses(typ, &typed(typ), Reason::TokenType).await;
    }
}

#[tokio::test]
async fn signature_lines() {
    let house = house("");
    let good = good_token();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let zero = [0_u8; 32];
    let mut one = zero;
    one[31] = 1;
    for (what, r, s) in [
        ("r = s = 0", zero, zero),
        ("r = 0", zero, one),
        ("s = 0", one, zero),
        ("r = n", order, one),
        ("s = n", one, order),
        ("r = s = n", order, order),
        ("r = s = 1", one, one),
    ] {
        let forged = format!("{message}.{}", b64([r, s].concat()));
        house.refuses(what, &forged, Reason::TokenSignature).await;
    }
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("63 bytes", vec![1; 63]),
        ("65 bytes", vec![1; 65]),
        (
            "DER",
            [
                &[0x30, 0x44, 0x02, 0x20][..],
                &[1; 32],
                &[0x02, 0x20],
                &[1; 32],
            ]
            .concat(),
        ),
        (
            "96 bytes, as of P-384",
            KEYS["p384"].sign("ES384", message.as_bytes()),
        ),
    ] {
        let forged = format!("{message}.{}", b64(bytes));
        house.refuses(what, &forged, Reason::TokenSignature).await;
    }
    let moved = format!(
        "{}.{signature}",
        with_payload(good_claims().to_string())
            .rsplit_once('.')
            .unwrap()
            .0
    );
    house
        .refuses(
            "the signature of another token",
            &moved,
            Reason::TokenSignature,
        )
        .await;
    let other_subject = with_claims(|claims| claims["sub"] = "admin".into());
    let forged = format!("{}.{signature}", other_subject.rsplit_once('.').unwrap().0);
    house
        .refuses("another payload", &forged, Reason::TokenSignature)
        .await;
}

#[tokio::test]
async fn a_raw_signature_is_demanded_where_der_would_verify() {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let der = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let (x, y) = der.public_key().as_ref()[1..].split_at(32);
    let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "der", "x": b64(x), "y": b64(y) }] });
    let house = house_of(&file_issuer(&keys, ""));
    let message = format!(
        "{}.{}",
        b64(r#"{"alg":"ES256","kid":"der"}"#),
        b64(good_claims().to_string())
    );
    let signature = der.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let token = format!("{message}.{}", b64(signature));
    house.refuses("DER", &token, Reason::TokenSignature).await;
}

#[tokio::test]
async fn key_lines_of_the_token() {
    let house = house("");
    for kid in [
        "P256",
        "p256 ",
        "p25",
        "../p256",
        "p256?x",
        "http://127.0.0.1/p256",
        "",
        "p256\\u0000",
    ] {
        let odd = with_header(&format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#));
        house.refuses(kid, &odd, Reason::TokenKey).await;
    }
    let long = with_header(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(257)));
    house.refuses("257 bytes", &long, Reason::TokenHeader).await;
    house
        .accepts("no kid, one key fits", &with_header(r#"{"alg":"ES256"}"#))
        .await;

    let two = json!({ "keys": [KEYS["p256"].jwk("a"), STRANGER["p256"].jwk("b")] });
    let two = house_of(&file_issuer(&two, ""));
    two.refuses(
        "no kid, two keys fit",
        &with_header(r#"{"alg":"ES256"}"#),
        Reason::TokenKey,
    )
    .await;
}

#[tokio::test]
async fn an_expired_token_is_refused_from_the_cache_too() {
    let house = house("");
    let bearer = format!("Bearer {}", good_token());
    for (second, expected) in [
        (NOW, Ok(())),
        (NOW + 629, Ok(())),
        (NOW + 630, Err(Reason::TokenExpired)),
        (NOW + 631, Err(Reason::TokenExpired)),
        (NOW - 31, Err(Reason::TokenNotYetValid)),
        (NOW, Ok(())),
    ] {
        let verdict = identify(&house.header, "authorization", &bearer, at(second)).await;
        assert_eq!(verdict.map(drop), expected, "at {second}");
    }
}

#[tokio::test]
async fn shared_secrets_are_two_during_a_rotation() {
    let (new, old) = ("n".repeat(32), "o".repeat(32));
    let toml = format!(
        "[issuer.main]\nurl = \"IdentSphere\"\naudiences = []\nrequired_claims = [\"org\", \"aal\"]\nalgorithms = [\"HS256\"]\nsecret = {{ file = \"{}\" }}\nprevious_secret = {{ file = \"{}\" }}\n",
        file(format!("{new}\n")),
        file(format!("{old}\r\n")),
    );
    let house = house_of(&toml);
    let claims =
        json!({ "iss": "IdentSphere", "sub": "u1", "exp": NOW + 600, "org": "o1", "aal": 2 });
    let signed = |secret: &str, header: &str, claims: &Value| {
        token_of(
            header,
            claims.to_string(),
            "HS256",
            &Signer::Secret(secret.as_bytes().to_vec()),
        )
    };
    let header = r#"{"alg":"HS256"}"#;
    house
        .accepts("the current secret", &signed(&new, header, &claims))
        .await;
    house
        .accepts("the previous secret", &signed(&old, header, &claims))
        .await;
    house
        .accepts(
            "a kid plays no part",
            &signed(&new, r#"{"alg":"HS256","kid":"x"}"#, &claims),
        )
        .await;
    house
        .refuses(
            "another secret",
            &signed(&"x".repeat(32), header, &claims),
            Reason::TokenSignature,
        )
        .await;
    let rs = token_of(
        r#"{"alg":"RS256"}"#,
        claims.to_string(),
        "RS256",
        &KEYS["rsa"],
    );
    house.refuses("RS256", &rs, Reason::TokenAlgorithm).await;
    let before_mfa = json!({ "iss": "IdentSphere", "sub": "u1", "exp": NOW + 600 });
    house
        .refuses(
            "a token before the second factor",
            &signed(&new, header, &before_mfa),
            Reason::TokenClaims,
        )
        .await;
}

#[tokio::test]
async fn roles_and_scopes_are_taken_as_issuers_write_them() {
    let zitadel = "urn:zitadel:iam:org:project:roles";
    let house = house(&format!(
        "roles_claim = \"{zitadel}\"\norg_claim = \"urn:zitadel:iam:user:resourceowner:id\""
    ));
    let token = with_claims(|claims| {
        claims[zitadel] = json!({ "admin": { "1": "a.example" }, "writer": { "1": "a.example" } });
        claims["urn:zitadel:iam:user:resourceowner:id"] = json!("1");
        claims["scope"] = json!("openid  profile");
        claims["email"] = json!("a@example.com");
    });
    let principal = house.accepts("ZITADEL", &token).await;
    assert_eq!(principal.facts.roles, ["admin", "writer"]);
    assert_eq!(principal.facts.org.as_deref(), Some("1"));
    assert_eq!(principal.facts.scopes, ["openid", "profile"]);
    assert_eq!(principal.facts.email.as_deref(), Some("a@example.com"));
}

#[tokio::test]
async fn a_route_without_demand_looks_at_no_credential() {
    let house = house("");
    for auth in ["\"none\"", "\"deny\""] {
        let open = authn(auth, &house.authorities);
        let principal = identify(&open, "authorization", "Bearer rubbish", at(NOW))
            .await
            .unwrap();
        assert!(!principal.is_authenticated());
    }
}

#[tokio::test]
async fn optional_lets_an_absent_credential_through_and_no_bad_one() {
    let house = house("");
    let optional = authn("{ any = [\"main\"], optional = true }", &house.authorities);
    let absent = identify(&optional, "accept", "*/*", at(NOW)).await.unwrap();
    assert!(!absent.is_authenticated());
    let bad = identify(&optional, "authorization", "Bearer a.b.c", at(NOW)).await;
    assert_eq!(bad.map(drop), Err(Reason::CredentialMalformed));
    let required = identify(&house.header, "accept", "*/*", at(NOW)).await;
    assert_eq!(required.map(drop), Err(Reason::CredentialMissing));
}

#[tokio::test]
async fn iss_chooses_among_the_issuers_of_the_route() {
    let main = file_issuer(&key_set(), "");
    let stranger_keys =
        json!({ "keys": STRANGER.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>() });
    let other = file_issuer(&stranger_keys, "")
        .replace("issuer.main", "issuer.other")
        .replace(ISSUER, "https://other.example");
    let authorities = authorities(&format!("{main}\n{other}"));
    let both = authn("{ any = [\"main\", \"other\"] }", &authorities);
    let header = r#"{"alg":"ES256","kid":"p256"}"#;
    let mut claims = good_claims();
    claims["iss"] = "https://other.example".into();
    let theirs = token_of(header, claims.to_string(), "ES256", &STRANGER["p256"]);
    let crossed = token_of(header, claims.to_string(), "ES256", &KEYS["p256"]);
    for (token, expected) in [
        (good_token(), Ok("main")),
        (theirs.clone(), Ok("other")),
        (crossed, Err(Reason::TokenSignature)),
        (theirs, Ok("other")),
    ] {
        let verdict = identify(&both, "authorization", &format!("Bearer {token}"), at(NOW)).await;
        let source = verdict.map(|principal| principal.source.to_string());
        assert_eq!(source, expected.map(str::to_owned));
    }
    let one = authn("{ any = [\"main\"] }", &authorities);
    let foreign = token_of(header, claims.to_string(), "ES256", &KEYS["p256"]);
    let verdict = identify(&one, "authorization", &format!("Bearer {foreign}"), at(NOW)).await;
    assert_eq!(verdict.map(drop), Err(Reason::TokenIssuer));
}

#[tokio::test]
async fn a_token_in_a_cookie_names_its_session_as_source() {
    let house = house("");
    let cookie = format!("at={}", good_token());
    let principal = identify(&house.cookie, "cookie", &cookie, at(NOW))
        .await
        .unwrap();
    assert_eq!(
        (&*principal.source, principal.method),
        ("web", AuthMethod::Jwt)
    );
}
