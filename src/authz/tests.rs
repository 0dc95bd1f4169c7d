use std::sync::Arc;

use serde_json::{Value, json};

use super::Rules;
use crate::client_ip::ClientIp;
use crate::config::{KeyPath, Problems, Route};
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

fn verdict(auth: &str, principal: &Principal) -> Result<(), Reason> {
    let decision = rules(auth).decide(principal, local());
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
        .decide(&nobody, local())
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
        .decide(&principal, local())
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
        let outside = rules.decide(&known, local()).unwrap_err();
        assert_eq!(outside.reason(), Reason::NetworkForbidden);
        let mapped = ClientIp::new("::ffff:10.1.2.3".parse().unwrap());
        assert!(rules.decide(&known, mapped).is_ok());
    }
}

#[test]
fn rules_that_nobody_could_mean_are_problems() {
    assert!(problem("{ any = [\"main\"], claims = { org = [] } }").contains("auth.claims.org"));
    assert!(problem("{ any = [\"main\"], optional = true, roles = [\"a\"] }").contains("optional"));
    assert!(problem("{ any = [\"main\"], scopes = [\"a b\"] }").contains("scopes"));
}
