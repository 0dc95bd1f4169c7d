use std::sync::{Arc, LazyLock};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::client_cert::ClientCerts;
use super::{Asked, Rules};
use crate::client_ip::ClientIp;
use crate::config::{KeyPath, Problems, Route};
use crate::types::client_cert::{ClientCert, San};
use crate::types::{AuthMethod, Principal, PrincipalFacts, Reason, Rejection};

fn route(auth: &str) -> Route {
    toml::from_str(&format!("upstream = \"api\"\nauth = {auth}")).unwrap()
}

fn rules(auth: &str) -> Rules {
    let mut problems = Problems::default();
    let rules = Rules::compile(&route(auth), &KeyPath::root(), &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.into_errors());
    rules.unwrap()
}

fn problem(auth: &str) -> String {
    let mut problems = Problems::default();
    assert!(Rules::compile(&route(auth), &KeyPath::root(), &mut problems).is_none());
    let errors = problems.into_errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

fn caller(facts: PrincipalFacts) -> Principal {
    Principal {
        method: AuthMethod::Jwt,
        source: "main".into(),
        facts: Arc::new(facts),
        beside: None,
    }
}

fn with_claims(claims: &Value) -> Principal {
    caller(PrincipalFacts {
        claims: claims.as_object().unwrap().clone(),
        ..PrincipalFacts::default()
    })
}

fn local() -> ClientIp {
    ClientIp::new([127, 0, 0, 1].into())
}

static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let fields = [
        ("x-tenant", "blue"),
        ("x-tenant", "red"),
        ("cookie", "sid=1"),
        ("x-forwarded-for", "10.0.0.1"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value.parse().unwrap());
    }
    headers
});

fn asked(client: ClientIp) -> Asked<'static> {
    Asked {
        client,
        method: &Method::POST,
        host: "api.example.com",
        path: "/v1/invoices",
        client_cert: None,
        headers: &HEADERS,
    }
}

fn verdict(auth: &str, principal: &Principal) -> Result<(), Reason> {
    let decision = rules(auth).decide(principal, &asked(local()));
    decision.map(drop).map_err(|why: Rejection| why.reason())
}

#[test]
fn none_lets_everybody_through_and_deny_nobody() {
    let known = caller(PrincipalFacts::default());
    for principal in [&Principal::anonymous(), &known] {
        assert_eq!(verdict("\"none\"", principal), Ok(()));
        assert_eq!(verdict("\"deny\"", principal), Err(Reason::RouteClosed));
    }
}

#[test]
fn anonymous_passes_only_where_a_credential_is_optional() {
    let nobody = Principal::anonymous();
    let refused = rules("{ any = [\"main\"] }")
        .decide(&nobody, &asked(local()))
        .unwrap_err();
    assert_eq!(refused.reason(), Reason::CredentialMissing);
    assert!(refused.www_authenticate().is_some());
    assert_eq!(
        verdict("{ any = [\"main\"], optional = true }", &nobody),
        Ok(())
    );
}

#[test]
fn one_of_the_roles_is_enough() {
    let principal = |roles: &[&str]| {
        caller(PrincipalFacts {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..PrincipalFacts::default()
        })
    };
    let auth = "{ any = [\"main\"], roles = [\"writer\", \"admin\"] }";
    assert_eq!(verdict(auth, &principal(&["reader", "admin"])), Ok(()));
    for roles in [&[][..], &["reader"], &["Admin"], &["admin "]] {
        assert_eq!(
            verdict(auth, &principal(roles)),
            Err(Reason::Forbidden),
            "{roles:?}"
        );
    }
}

#[test]
fn a_missing_scope_is_named_in_the_challenge() {
    let principal = caller(PrincipalFacts {
        scopes: vec!["read".to_owned()],
        ..PrincipalFacts::default()
    });
    assert_eq!(
        verdict("{ any = [\"main\"], scopes = [\"read\"] }", &principal),
        Ok(())
    );
    let refused = rules("{ any = [\"main\"], scopes = [\"write\", \"admin\"] }")
        .decide(&principal, &asked(local()))
        .unwrap_err();
    assert_eq!(refused.reason(), Reason::InsufficientScope);
    let challenge = refused.www_authenticate().unwrap();
    assert_eq!(challenge.scope.as_deref(), Some("write admin"));
}

#[test]
fn claims_match_as_text_in_lists_and_in_objects() {
    let principal = with_claims(&json!({
        "org": "42", "level": 2, "ok": true, "no": null, "groups": ["a", 7],
        "nested": { "deep": "x" },
        "urn:zitadel:iam:org:project:1:roles": { "writer": { "o1": "a.example" }, "gone": false, "void": null },
    }));
    let met = [
        "{ org = \"42\" }",
        "{ org = [\"41\", \"42\"] }",
        "{ level = \"2\" }",
        "{ ok = \"true\" }",
        "{ groups = \"7\" }",
        "{ \"nested.deep\" = \"x\" }",
        "{ nested = \"deep\" }",
        "{ \"urn:zitadel:iam:org:project:1:roles\" = \"writer\" }",
        "{ \"urn:zitadel:iam:org:project:1:roles.writer\" = \"o1\" }",
        "{ org = \"42\", level = [\"1\", \"2\"] }",
    ];
    for claims in met {
        let auth = format!("{{ any = [\"main\"], claims = {claims} }}");
        assert_eq!(verdict(&auth, &principal), Ok(()), "{claims}");
    }
    let unmet = [
        "{ org = \"4\" }",
        "{ level = \"2.0\" }",
        "{ no = \"null\" }",
        "{ no = \"\" }",
        "{ absent = \"\" }",
        "{ groups = \"[\\\"a\\\",7]\" }",
        "{ \"urn:zitadel:iam:org:project:1:roles\" = \"gone\" }",
        "{ \"urn:zitadel:iam:org:project:1:roles\" = \"void\" }",
        "{ \"urn:zitadel:iam:org:project:1:roles.writer\" = \"o2\" }",
        "{ org = \"42\", level = \"3\" }",
    ];
    for claims in unmet {
        let auth = format!("{{ any = [\"main\"], claims = {claims} }}");
        assert_eq!(
            verdict(&auth, &principal),
            Err(Reason::Forbidden),
            "{claims}"
        );
    }
}

#[test]
fn every_kind_of_demand_must_be_met() {
    let principal = caller(PrincipalFacts {
        roles: vec!["writer".to_owned()],
        scopes: vec!["read".to_owned()],
        ..PrincipalFacts::default()
    });
    let auth = "{ any = [\"main\"], roles = [\"writer\"], scopes = [\"write\"] }";
    assert_eq!(verdict(auth, &principal), Err(Reason::InsufficientScope));
}

#[test]
fn a_network_is_judged_before_the_credential_and_also_on_public_routes() {
    for auth in ["\"none\"", "{ any = [\"main\"] }"] {
        let mut route = route(auth);
        route.from = vec!["10.0.0.0/8".parse().unwrap()];
        let rules = Rules::compile(&route, &KeyPath::root(), &mut Problems::default()).unwrap();
        let known = caller(PrincipalFacts::default());
        let outside = rules.decide(&known, &asked(local())).unwrap_err();
        assert_eq!(outside.reason(), Reason::NetworkForbidden);
        let mapped = ClientIp::new("::ffff:10.1.2.3".parse().unwrap());
        assert!(rules.decide(&known, &asked(mapped)).is_ok());
    }
}

#[test]
fn rules_that_nobody_could_mean_are_problems() {
    assert!(problem("{ any = [\"main\"], claims = { org = [] } }").contains("auth.claims.org"));
    assert!(problem("{ any = [\"main\"], optional = true, roles = [\"a\"] }").contains("optional"));
    assert!(problem("{ any = [\"main\"], scopes = [\"a b\"] }").contains("scopes"));
}

fn holds(when: &str, claims: &Value) -> bool {
    let auth = format!("{{ any = [\"main\"], when = {when:?} }}");
    let principal = with_claims(claims);
    let first = verdict(&auth, &principal);
    assert!(matches!(first, Ok(()) | Err(Reason::Forbidden)), "{when}");
    assert_eq!(verdict(&auth, &principal), first, "once more: {when}");
    first.is_ok()
}

#[test]
fn a_level_of_authentication_is_one_of_the_listed() {
    let auth = "{ any = [\"main\"], aal = [\"2\", \"aal3\"] }";
    for (claims, expected) in [
        (json!({ "aal": 2 }), Ok(())),
        (json!({ "aal": "aal3" }), Ok(())),
        (json!({ "aal": 1 }), Err(Reason::Forbidden)),
        (json!({}), Err(Reason::Forbidden)),
    ] {
        assert_eq!(verdict(auth, &with_claims(&claims)), expected, "{claims}");
    }
}

#[test]
fn zitadels_roles_are_those_of_the_project_and_of_the_organisation() {
    let principal = with_claims(&json!({
        "urn:zitadel:iam:org:project:roles": { "reader": { "o1": "a.example" } },
        "urn:zitadel:iam:org:project:71:roles": { "writer": { "o1": "a.example", "o2": "b.example" } },
    }));
    for (claim, value, expected) in [
        ("urn:zitadel:iam:org:project:roles", "reader", true),
        ("urn:zitadel:iam:org:project:roles", "writer", false),
        ("urn:zitadel:iam:org:project:71:roles", "writer", true),
        ("urn:zitadel:iam:org:project:72:roles", "writer", false),
        ("urn:zitadel:iam:org:project:71:roles.writer", "o2", true),
        ("urn:zitadel:iam:org:project:71:roles.writer", "o3", false),
        ("urn:zitadel:iam:org:project:roles.reader", "o2", false),
    ] {
        let auth = format!("{{ any = [\"main\"], claims = {{ {claim:?} = {value:?} }} }}");
        assert_eq!(
            verdict(&auth, &principal).is_ok(),
            expected,
            "{claim} {value}"
        );
    }
}

#[test]
fn a_rule_decides_over_claims_request_and_client() {
    let claims = json!({
        "org": "42", "level": 3, "share": 0.5, "ok": true, "none": null, "groups": ["dev", "ops-eu"],
        "map": { "writer": { "o1": "x" } }, "urn:a:b": "c",
    });
    for (when, expected) in [
        ("claims.org == '42'", true),
        ("claims.org == 42", false),
        ("claims.level >= 2 && claims.share < 0.6 && claims.ok", true),
        ("claims.none == null", true),
        ("claims['urn:a:b'] == 'c'", true),
        ("'org' in claims && !('orgs' in claims)", true),
        ("has(claims.map.writer) && !has(claims.map.reader)", true),
        ("'o1' in claims.map.writer", true),
        ("claims.groups.exists(g, g.startsWith('ops-'))", true),
        ("claims.groups.all(g, g.startsWith('ops-'))", false),
        ("'dev' in claims.groups && size(claims.groups) == 2", true),
        (
            "claims.groups[1].endsWith('eu') && claims.groups[0].contains('e')",
            true,
        ),
        ("claims.org in ['41', '42']", true),
        ("string(claims.level) == '3'", true),
        ("claims.ok ? request.method == 'POST' : false", true),
        (
            "request.host == 'api.example.com' && request.path.startsWith('/v1/')",
            true,
        ),
        ("request.headers['x-tenant'] == 'blue, red'", true),
        ("'x-none' in request.headers", false),
        (
            "client.ip == '127.0.0.1' && client.ip.within('127.0.0.0/8')",
            true,
        ),
        (
            "client.ip.within('10.0.0.0/8') || client.ip.within('::1/128')",
            false,
        ),
        // What cannot be decided refuses; what is decided anyway does not mind.
        ("claims.absent == 'x'", false),
        ("claims.absent != 'x'", false),
        ("!(claims.absent == 'x')", false),
        ("claims.absent == 'x' || claims.ok", true),
        ("claims.groups[9] == 'x'", false),
        ("claims.org > 3", false),
        ("claims.org", false),
        ("claims.org.within('10.0.0.0/8')", false),
        ("'yes'", false),
        ("true", true),
        ("claims.all(c, true)", false),
        ("request.query == ''", false),
        ("request.headers[claims.org] == ''", false),
    ] {
        assert_eq!(holds(when, &claims), expected, "{when}");
    }
}

#[test]
fn a_rule_sees_no_credentials_and_no_forwarding_headers_by_any_way() {
    let claims = json!({ "a": "cookie", "b": "x-forwarded-for", "list": ["cookie"] });
    for when in [
        "request.headers[claims.a] != ''",
        "claims.a in request.headers",
        "request.headers[claims.b] != ''",
        "claims.list.exists(n, n in request.headers)",
        "request['headers']['cookie'] != ''",
    ] {
        assert!(!holds(when, &claims), "{when}");
    }
    for name in ["cookie", "authorization", "x-forwarded-for", "Forwarded"] {
        let when = format!("request.headers['{name}'] == ''");
        let auth = format!("{{ any = [\"main\"], when = {when:?} }}");
        assert!(problem(&auth).contains("auth.when: column "), "{when}");
    }
}

#[test]
fn a_rule_is_found_wrong_when_it_is_loaded_and_the_column_is_told() {
    for (when, told) in [
        ("", "is empty"),
        ("claims.org ==", "column "),
        ("claims.org == '42", "column "),
        ("claim.org == '42'", "column 1: there is no `claim`"),
        ("true && user == 'x'", "column 9: there is no `user`"),
        ("claims.a.matches('^a$')", "`matches` is not available"),
        ("claims.a + claims.b == ''", "`+` is not available"),
        ("claims.a.map(x, x) == []", "`all` and `exists`"),
        ("claims.a.filter(x, true) == []", "`all` and `exists`"),
        ("claims.a.exists_one(x, true)", "`all` and `exists`"),
        ("{'a': 1} == claims.a", "no maps"),
        (
            "claims.a.exists(x, claims.b.exists(y, x == y))",
            "a loop stands within a loop",
        ),
        ("client.ip.within('10.0.0.0/33')", "is no network"),
        ("client.ip.within(claims.net)", "takes a network"),
    ] {
        let auth = format!("{{ any = [\"main\"], when = {when:?} }}");
        let problem = problem(&auth);
        assert!(
            problem.contains("auth.when") && problem.contains(told),
            "{when}: {problem}"
        );
    }
}

#[test]
fn a_rule_is_bounded_whatever_it_looks_like() {
    let chain = |part: &str, by: &str, count: usize| vec![part; count].join(by);
    for when in [
        chain("true", " && ", 200),
        chain("claims.a", " == ", 100),
        format!("{}true{}", "(".repeat(500), ")".repeat(500)),
        format!("{}1{} == 1", "[".repeat(40), "]".repeat(40)),
        format!("{}true", "!".repeat(1_000)),
        format!("{}1 == 1", "-".repeat(1_000)),
        format!("{}true", "true ? true : ".repeat(70)),
        format!("claims{}", ".a".repeat(500)),
        format!("claims{}", "[0]".repeat(300)),
        chain("claims.a.all(x, true)", " && ", 5),
        "x".repeat(1_025),
    ] {
        let auth = format!("{{ any = [\"main\"], when = {when:?} }}");
        problem(&auth);
    }
}

#[test]
fn a_rule_over_more_values_than_are_counted_refuses() {
    let list = |count: usize| json!({ "list": vec!["a"; count], "one": "b" });
    let when = "!claims.list.exists(x, x == claims.one)";
    assert!(holds(when, &list(1_000)));
    assert!(!holds(when, &list(3_000)));
}

/// However a rule gets at the claims, all that it takes out of them counts together.
#[test]
fn a_rule_that_copies_the_claims_takes_no_more_out_of_them() {
    let many: Vec<_> = (0..1_000).collect();
    let claims = json!({ "a": many, "b": many });
    assert!(holds("claims.a.exists(x, x == 999)", &claims));
    for when in [
        "claims.a.exists(x, x in claims.b && x == 999)",
        "claims.a.exists(x, x in [claims][0].b && x == 999)",
        "claims.a.exists(x, x in (x > 5 ? claims : claims).b && x == 999)",
    ] {
        assert!(!holds(when, &claims), "{when}");
    }
}

#[test]
fn a_rule_over_claims_alone_is_evaluated_once_for_a_credential() {
    let rule = |text: &str| super::when::When::compile(text).unwrap();
    assert!(rule("claims.org == '42'").looks_at_claims_alone());
    assert!(!rule("claims.org == '42' && client.ip != ''").looks_at_claims_alone());
    assert!(!rule("claims.org == request.host").looks_at_claims_alone());
    let principal = with_claims(&json!({ "org": "42" }));
    let auth = "{ any = [\"main\"], when = \"claims.org == '42'\" }";
    assert_eq!(verdict(auth, &principal), Ok(()));
    let text: Arc<str> = "claims.org == '42'".into();
    assert_eq!(principal.facts.kept.verdicts.find(&text), Some(true));
}

#[test]
fn a_rule_can_speak_of_who_shows_no_credential() {
    let auth =
        "{ any = [\"main\"], optional = true, when = \"!has(claims.sub) || claims.level > 1\" }";
    assert_eq!(verdict(auth, &Principal::anonymous()), Ok(()));
    let low = with_claims(&json!({ "sub": "u", "level": 1 }));
    assert_eq!(verdict(auth, &low), Err(Reason::Forbidden));
}

fn cert(names: &[&str], fingerprint: u8) -> ClientCert {
    let names = names.iter().map(|name| San::written(name).unwrap());
    ClientCert {
        names: names.collect(),
        fingerprint: [fingerprint; 32],
    }
}

#[test]
fn a_client_certificate_is_told_by_its_name_or_its_fingerprint() {
    let wanted = || {
        let names = ["edge.internal", "spiffe://prod/edge", "10.0.0.7"];
        let names = names.map(|name| San::written(name).unwrap());
        ClientCerts::new(names.to_vec(), vec![[7; 32]])
    };
    let check = |auth: &str, shown: Option<&ClientCert>, expected: Result<(), Reason>| {
        let asked = Asked {
            client_cert: shown,
            ..asked(local())
        };
        let rules = rules(auth).for_clients_with(wanted());
        let decision = rules.decide(&Principal::anonymous(), &asked);
        let verdict = decision.map(drop).map_err(|why| why.reason());
        assert_eq!(verdict, expected, "{auth} {shown:?}");
    };
    let open = "\"none\"";
    for good in [
        cert(&["EDGE.internal"], 1),
        cert(&["other.internal", "spiffe://prod/edge"], 1),
        cert(&["10.0.0.7"], 1),
        cert(&[], 7),
    ] {
        check(open, Some(&good), Ok(()));
    }
    for bad in [
        cert(&[], 1),
        cert(&["sub.edge.internal"], 1),
        cert(&["spiffe://prod/edge/x"], 1),
        cert(&["spiffe://PROD/edge"], 1),
        cert(&["10.0.0.70"], 1),
    ] {
        check(open, Some(&bad), Err(Reason::Forbidden));
    }
    // The letters of a host in a name of another kind.
    for other in [
        San::Uri("edge.internal".into()),
        San::Email("edge.internal".into()),
        San::Dns("10.0.0.7".into()),
    ] {
        let mut shown = cert(&[], 1);
        shown.names = [other].into();
        check(open, Some(&shown), Err(Reason::Forbidden));
    }
    check(open, None, Err(Reason::Forbidden));
    // It stands beside the other demands, and for none of them.
    let good = cert(&[], 7);
    let known = "{ any = [\"main\"] }";
    check(known, Some(&good), Err(Reason::CredentialMissing));
    check("\"deny\"", Some(&good), Err(Reason::RouteClosed));
}
