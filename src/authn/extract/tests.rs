use super::*;
use proptest::prelude::*;

fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn names() -> [Box<str>; 2] {
    ["sid".into(), "other".into()]
}

const TOKEN_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-token"),
    HeaderName::from_static("x-other-token"),
];

fn both(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Reason> {
    let names = names();
    let wanted = Wanted {
        bearer: true,
        headers: &TOKEN_HEADERS,
        cookies: &names,
    };
    find(headers, wanted).map_err(|why| why.reason())
}

fn bearer(value: &[u8]) -> Result<Option<String>, Reason> {
    let headers = headers(&[("authorization", value)]);
    both(&headers).map(|found| match found {
        Some(Credential::Bearer(token)) => Some(token.to_owned()),
        None => None,
        other => panic!("{other:?}"),
    })
}

fn sid(fields: &[&[u8]]) -> Result<Option<String>, Reason> {
    let fields: Vec<_> = fields.iter().map(|value| ("cookie", *value)).collect();
    let headers = headers(&fields);
    both(&headers).map(|found| {
        found.map(|found| match found {
            Credential::Cookie { position: 0, value } => value.to_owned(),
            other => panic!("{other:?}"),
        })
    })
}

#[test]
fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
    for value in [
        "Bearer a.b.c",
        "bearer a.b.c",
        "BEARER   a.b.c",
        " Bearer a.b.c ",
    ] {
        assert_eq!(
            bearer(value.as_bytes()),
            Ok(Some("a.b.c".to_owned())),
            "{value}"
        );
    }
}

#[test]
fn a_bearer_token_holds_only_what_rfc_6750_lets_it_hold() {
    let bad: [&[u8]; 12] = [
        b"Bearer",
        b"Bearer ",
        b"Bearer =",
        b"Bearer a b",
        b"Bearer\ta",
        b"Bearer a,b",
        b"Bearer a, Bearer b",
        b"Bearer,a",
        b"Bearer \"a\"",
        b"Bearer a=b",
        b"Bearer \xe9",
        b"Bearer Bearer a",
    ];
    for value in bad {
        assert_eq!(
            bearer(value),
            Err(Reason::CredentialMalformed),
            "{}",
            String::from_utf8_lossy(value)
        );
    }
}

#[test]
fn another_scheme_is_a_missing_credential() {
    for value in ["Basic dTpw", "DPoP a.b.c", "Bearerx a", "a.b.c", ""] {
        assert_eq!(
            bearer(value.as_bytes()),
            Err(Reason::CredentialMissing),
            "{value}"
        );
    }
}

#[test]
fn two_credentials_are_one_too_many() {
    let cases: [&[(&'static str, &[u8])]; 4] = [
        &[
            ("authorization", b"Bearer a"),
            ("authorization", b"Bearer a"),
        ],
        &[
            ("authorization", b"Bearer a"),
            ("authorization", b"Basic a"),
        ],
        &[("authorization", b"Bearer a"), ("cookie", b"sid=1")],
        &[("cookie", b"sid=1; other=2")],
    ];
    for fields in cases {
        assert_eq!(
            both(&headers(fields)),
            Err(Reason::CredentialAmbiguous),
            "{fields:?}"
        );
    }
}

#[test]
fn a_bearer_beside_the_session_cookie_is_refused_although_the_route_wants_none() {
    let headers = headers(&[("authorization", b"Bearer a"), ("cookie", b"sid=1")]);
    let names = names();
    let wanted = Wanted {
        bearer: false,
        headers: &[],
        cookies: &names,
    };
    let why = find(&headers, wanted).unwrap_err();
    assert_eq!(why.reason(), Reason::CredentialAmbiguous);
}

#[test]
fn cookies_of_other_names_play_no_part() {
    let headers = headers(&[
        ("authorization", b"Bearer a"),
        ("cookie", b"theme=dark; x=sid=1"),
    ]);
    assert_eq!(both(&headers), Ok(Some(Credential::Bearer("a"))));
    for value in [
        "xsid=1", "Sid=1", "sidx=1", "sid", "", ";;", "=sid", "a;sid",
    ] {
        assert_eq!(sid(&[value.as_bytes()]), Ok(None), "{value}");
    }
}

#[test]
fn a_session_cookie_is_found_among_others_and_over_several_fields() {
    assert_eq!(sid(&[b"a=1; sid=x.y=; b=2"]), Ok(Some("x.y=".to_owned())));
    assert_eq!(sid(&[b"a=1", b"sid=x", b"b=2"]), Ok(Some("x".to_owned())));
    assert_eq!(sid(&[b"sid=x;sid=x", b"sid=x"]), Ok(Some("x".to_owned())));
}

#[test]
fn a_session_cookie_that_occurs_twice_with_different_values_is_refused() {
    assert_eq!(sid(&[b"sid=x; sid=y"]), Err(Reason::CredentialAmbiguous));
    assert_eq!(sid(&[b"sid=x", b"sid=y"]), Err(Reason::CredentialAmbiguous));
    assert_eq!(sid(&[b"sid=x; sid="]), Err(Reason::CredentialAmbiguous));
}

#[test]
fn a_session_cookie_that_readers_could_read_differently_is_refused() {
    let bad: [&[u8]; 6] = [
        b"sid=\"x\"",
        b"sid =x",
        b"sid=x y",
        b"sid=x,y",
        b"sid=x\\y",
        b"sid=\xe9",
    ];
    for value in bad {
        assert_eq!(
            sid(&[value]),
            Err(Reason::CredentialMalformed),
            "{}",
            String::from_utf8_lossy(value)
        );
    }
}

#[test]
fn an_empty_session_cookie_is_no_credential() {
    assert_eq!(sid(&[b"sid="]), Ok(None));
}

#[test]
fn a_token_is_found_in_the_header_of_the_operators_choice() {
    let shown = headers(&[("x-token", b" a.b.c "), ("authorization", b"Basic dTpw")]);
    let expected = Credential::Header {
        position: 0,
        value: "a.b.c",
    };
    assert_eq!(both(&shown), Ok(Some(expected)));
    for bad in [&b""[..], b"a b", b"Bearer a", b"a, b", b"\xe9", b"="] {
        let shown = headers(&[("x-token", bad)]);
        let text = String::from_utf8_lossy(bad);
        assert_eq!(both(&shown), Err(Reason::CredentialMalformed), "{text}");
    }
}

#[test]
fn a_token_in_a_header_is_a_credential_like_any_other_and_one_is_enough() {
    for fields in [
        [("x-token", &b"a"[..]), ("x-token", b"a")],
        [("x-token", b"a"), ("x-other-token", b"a")],
        [("x-token", b"a"), ("authorization", b"Bearer a")],
        [("x-token", b"a"), ("cookie", b"sid=1")],
    ] {
        let shown = headers(&fields);
        assert_eq!(both(&shown), Err(Reason::CredentialAmbiguous), "{fields:?}");
    }
}

#[test]
fn whoever_ends_credentials_finds_them_all() {
    let shown = headers(&[
        ("authorization", b"Bearer a"),
        ("x-token", b"not a token"),
        ("x-other-token", b"b"),
        ("cookie", b"sid=1; other=2"),
    ]);
    let names = names();
    let wanted = Wanted {
        bearer: true,
        headers: &TOKEN_HEADERS,
        cookies: &names,
    };
    let cookie = |position, value| Credential::Cookie { position, value };
    let expected = [
        Credential::Bearer("a"),
        Credential::Header {
            position: 1,
            value: "b",
        },
        cookie(0, "1"),
        cookie(1, "2"),
    ];
    assert_eq!(each(&shown, wanted), expected);
}

#[test]
fn what_is_kept_of_a_request_shows_the_same_credentials_and_nothing_else() {
    let names = names();
    let wanted = Wanted {
        bearer: true,
        headers: &TOKEN_HEADERS,
        cookies: &names,
    };
    type Shown = &'static [(&'static str, &'static [u8])];
    let cases: [(Shown, usize); 6] = [
        (
            &[("authorization", b"Bearer a"), ("cookie", b"theme=dark")],
            1,
        ),
        (&[("authorization", b"Basic a"), ("cookie", b"sid=1")], 1),
        (&[("x-token", b"a"), ("accept", b"*/*")], 1),
        (
            &[
                ("cookie", b"a=1"),
                ("cookie", b"b=2; sid=x"),
                ("cookie", b"c=3"),
            ],
            1,
        ),
        (&[("cookie", b"sid=x"), ("cookie", b"sid=x")], 2),
        (&[("accept", b"*/*"), ("cookie", b"xsid=1")], 0),
    ];
    for (shown, count) in cases {
        let shown = headers(shown);
        let kept: HeaderMap = fields(&shown, wanted).collect();
        assert_eq!(kept.len(), count, "{shown:?}");
        assert_eq!(both(&kept), both(&shown), "{shown:?}");
    }
    let all = headers(&[
        ("authorization", b"Bearer a"),
        ("x-token", b"b"),
        ("x-other-token", b"c"),
        ("cookie", b"sid=1; other=2"),
        ("accept", b"*/*"),
    ]);
    let kept: HeaderMap = fields(&all, wanted).collect();
    assert_eq!(kept.len(), 4);
    let shown = find_all(&all, wanted).unwrap().unwrap();
    assert_eq!(find_all(&kept, wanted).unwrap().unwrap(), shown);
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4)) {
        let mut headers = HeaderMap::new();
        for (position, value) in values.iter().enumerate() {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                let names = [COOKIE, AUTHORIZATION, TOKEN_HEADERS[0].clone()];
                headers.append(&names[position % 3], value);
            }
        }
        let _ = both(&headers);
    }

    #[test]
    fn what_is_found_is_what_was_sent(token in "[A-Za-z0-9._~+/-]{1,40}={0,2}", value in "[!#-+.-:<-\\[\\]-~-]{1,40}") {
        prop_assert_eq!(bearer(format!("Bearer {token}").as_bytes()), Ok(Some(token)));
        prop_assert_eq!(sid(&[format!("a=b; sid={value}").as_bytes()]), Ok(Some(value)));
    }
}
