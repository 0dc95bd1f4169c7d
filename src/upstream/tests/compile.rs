//! `[upstream.NAME]`: what is refused, and what survives a reload.

use std::io::Write as _;
use std::sync::Arc;

use super::support::{cluster, try_cluster};

fn urls(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

#[test]
fn mistakes_are_all_reported_with_their_place() {
    let more = "max_requests = 0\nidle_timeout = \"0s\"\nhost = \"a b\"\n\
        tls = { ca = \"/nowhere/ca.pem\" }\n\
        health = { path = \"ready\", statuses = [200, 99], interval = \"0s\" }";
    let errors = try_cluster(
        &urls(&["http://10.0.0.1", "http://10.0.0.1:80"]),
        more,
        None,
    );
    let errors = errors.unwrap_err().join("\n");
    for key in [
        "upstream.api.max_requests",
        "upstream.api.idle_timeout",
        "upstream.api.host",
        "upstream.api.tls:",
        "upstream.api.tls.ca",
        "upstream.api.health.path",
        "upstream.api.health.statuses[1]",
        "upstream.api.health.interval",
        "upstream.api.endpoints[1]",
    ] {
        assert!(errors.contains(key), "{key} is missing in\n{errors}");
    }
    assert!(try_cluster(&[], "", None).is_err());
}

#[test]
fn an_unchanged_cluster_is_the_same_cluster() {
    let endpoints = urls(&["http://10.0.0.1", "h2c://10.0.0.2:81"]);
    let first = cluster(&endpoints, "");
    let second = try_cluster(&endpoints, "", Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn an_unchanged_endpoint_survives_the_change_of_its_cluster() {
    let first = cluster(&urls(&["http://10.0.0.1", "http://10.0.0.2"]), "");
    let more = "retries = 3\nmax_requests = 7";
    let second = try_cluster(
        &urls(&["http://10.0.0.2", "http://10.0.0.3"]),
        more,
        Some(&first),
    )
    .unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&first.endpoints()[1], &second.endpoints()[0]));
    let third = try_cluster(
        &urls(&["http://10.0.0.2", "http://10.0.0.3"]),
        "idle_timeout = \"1s\"",
        Some(&second),
    )
    .unwrap();
    assert!(!Arc::ptr_eq(&second.endpoints()[0], &third.endpoints()[0]));
}

#[test]
fn a_new_bundle_under_the_old_name_is_noticed() {
    let bundle = || {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        signed.unwrap().cert.pem()
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bundle().as_bytes()).unwrap();
    let more = format!("tls = {{ ca = {:?} }}", file.path());
    let endpoints = urls(&["h2://10.0.0.1"]);
    let first = cluster(&endpoints, &more);
    let same = try_cluster(&endpoints, &more, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    file.write_all(bundle().as_bytes()).unwrap();
    let second = try_cluster(&endpoints, &more, Some(&first)).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
}

#[test]
fn mistakes_elsewhere_do_not_hide_a_good_cluster() {
    use crate::config::{KeyPath, Problems};
    let mut problems = Problems::default();
    problems.push(&KeyPath::root(), "something else is wrong");
    let upstream = toml::from_str("endpoints = [\"http://10.0.0.1\"]").unwrap();
    let path = KeyPath::root();
    let compiled = crate::upstream::Cluster::compile("api", &upstream, &path, None, &mut problems);
    assert!(compiled.is_some());
}
