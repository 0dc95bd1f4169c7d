//! The command line: what it prints, and exit codes 0 (fine), 1 (the answer is no), 2 (usage).

use std::process::Output;

use crate::support::binary::{vestibule, with_file};
use crate::support::redis::store_at;

const GOOD: &str = r#"
    [listen.public]
    bind = "127.0.0.1:0"
    [upstream.api]
    endpoints = ["http://127.0.0.1:9"]
    [[route]]
    name = "api"
    path = "/api/*"
    auth = "none"
    upstream = "api"
    [[route]]
    name = "admin"
    path = "/admin/*"
    auth = "deny"
    [[test]]
    url = "http://a.example/api/x"
    expect = "api"
    [[test]]
    url = "http://a.example/x"
    expect = "no_route"
"#;

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn check(text: &str) -> (Option<i32>, String, String) {
    with_file(text, |path| told(&vestibule(&["check", "-c", path])))
}

#[test]
fn check_lists_what_is_public_and_runs_the_cases() {
    let (code, stdout, stderr) = check(GOOD);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let public = stdout.lines().find(|line| line.contains("PUBLIC")).unwrap();
    assert!(
        public.contains("/api") && public.contains("[api]"),
        "{public}"
    );
    assert!(
        stdout
            .lines()
            .any(|line| line.contains("closed") && line.contains("/admin")),
        "{stdout}"
    );
    assert!(stdout.contains("2 test cases"));
}

/// Replicas without a store count each for itself, and nobody should have to find out.
#[test]
fn check_says_what_several_replicas_count_together() {
    let told = |text: &str| {
        let (code, stdout, stderr) = check(text);
        assert_eq!(code, Some(0), "{stderr}");
        let lines = stdout.lines().filter(|line| line.starts_with("limits "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(GOOD), [""; 0], "nothing is limited");

    let limits = "[limit.login]\nrate = \"10/m\"\ncount = \"failures\"\n[limit.many]\nrate = \"500/s\"\n\
                  [limit.narrow]\nconcurrency = 3\n[limit.own]\nrate = \"9/s\"\nshared = \"off\"\n";
    let limited = format!("{GOOD}\n{limits}");
    assert_eq!(
        told(&limited),
        ["limits are exact in each process; with several replicas, [store] shares them"]
    );

    let store = store_at("\"redis://127.0.0.1:1\"", "");
    assert_eq!(
        told(&format!("{limited}\n{store}")),
        [
            "limits decided by the store, exactly: login",
            "limits leased from the store, within 5 %: many",
            "limits counted in each process, exactly: narrow, own",
        ]
    );
}

/// Two hundred hosts with the same paths: neither their order in the file nor their number moves a route.
#[test]
fn check_prints_one_precedence_whatever_the_order_in_the_file() {
    let head = GOOD.split("[[route]]").next().unwrap();
    let mut routes: Vec<String> = Vec::new();
    for host in 0..200 {
        for (path, rest) in [
            ("/*", "auth = \"none\"\nupstream = \"api\""),
            ("/admin/*", "auth = \"deny\""),
            ("~ ^/admin/[a-z]+$", "auth = \"none\"\nupstream = \"api\""),
        ] {
            routes.push(format!(
                "[[route]]\nname = \"{host} {path}\"\nhost = \"H{host}.example\"\npath = '{path}'\n{rest}\n"
            ));
        }
    }
    let listed = |routes: &[String]| {
        let (code, stdout, stderr) = check(&format!("{head}{}", routes.concat()));
        assert_eq!((code, &*stderr), (Some(0), ""));
        let list = stdout
            .lines()
            .skip_while(|line| !line.starts_with("routes, most specific first"));
        list.filter(|line| line.contains("example"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let first = listed(&routes);
    assert_eq!(first.len(), 600);
    // The longest text at the front wins, and a regex before a prefix of the same.
    let of_one: Vec<_> = first
        .iter()
        .filter(|line| line.contains("h7.example"))
        .collect();
    for (line, part) in of_one.iter().zip(["[7 ~ ^", "[7 /admin/*]", "[7 /*]"]) {
        assert!(line.contains(part), "{of_one:?}");
    }
    routes.reverse();
    assert_eq!(listed(&routes), first);
    routes.rotate_left(123);
    routes.swap(5, 400);
    assert_eq!(listed(&routes), first);
}

#[test]
fn check_tells_every_mistake_at_once_with_its_place() {
    let (code, _, stderr) = check(
        "[listen.public]\nbind = \"127.0.0.1:0\"\nbody_timout = \"5s\"\n[upstream.api]\nendpoints = [\"gopher://x\"]\n[[route]]\nupstream = \"api\"\n[[route]]\nauth = \"nobody\"\nupstream = \"api\"\n[limit.x]\nrate = \"fast\"",
    );
    assert_eq!(code, Some(1));
    for (line, part) in [
        (3, "body_timeout"),
        (5, "gopher"),
        (9, "nobody"),
        (12, "fast"),
    ] {
        let place = format!("vestibule.toml:{line}:");
        assert!(
            stderr
                .lines()
                .any(|told| told.contains(&place) && told.contains(part)),
            "{place} {part}\n{stderr}"
        );
    }
    assert!(stderr.contains("auth"), "{stderr}");
    assert!(
        stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .count()
            >= 5,
        "{stderr}"
    );
}

#[test]
fn check_finds_names_that_lead_nowhere() {
    let (code, _, stderr) = check(
        "[listen.public]\nbind = \"127.0.0.1:0\"\n[upstream.backend]\nendpoints = [\"http://127.0.0.1:9\"]\n[[route]]\nauth = { any = [\"mian\"] }\nlimits = [\"logn\"]\nupstream = \"backnd\"\n[limit.login]\nrate = \"1/s\"\n[issuer.main]\nurl = \"https://i.example\"\naudiences = [\"a\"]",
    );
    assert_eq!(code, Some(1));
    for word in ["`main`", "`login`", "`backend`"] {
        assert!(stderr.contains(word), "no hint of {word}: {stderr}");
    }
}

#[test]
fn a_case_that_fails_is_a_no() {
    let (code, _, stderr) = check(&GOOD.replace("expect = \"no_route\"", "expect = \"api\""));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("expected `api`, got `no_route`"),
        "{stderr}"
    );
}

#[test]
fn what_is_shown_can_be_run() {
    let shown = with_file(GOOD, |path| vestibule(&["show", "-c", path]));
    assert_eq!(shown.status.code(), Some(0));
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("handshake_timeout = \"10s\""), "{shown}");
    let again = with_file(&shown, |path| vestibule(&["show", "-c", path]));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shown);
    assert_eq!(check(&shown).0, Some(0));
}

#[test]
fn the_schema_is_json() {
    let (code, stdout, _) = told(&vestibule(&["schema"]));
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(schema["properties"]["route"].is_object());
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [&["serve"][..], &["check", "--no-such"], &[], &["run", "-c"]] {
        let (code, stdout, stderr) = told(&vestibule(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(stdout.is_empty() && stderr.contains("--help"), "{stderr}");
    }
    assert_eq!(told(&vestibule(&["--version"])).0, Some(0));
    assert_eq!(told(&vestibule(&["--help"])).0, Some(0));
}

#[test]
fn what_cannot_start_says_so_in_a_line() {
    let (code, _, stderr) = told(&vestibule(&["run", "-c", "/no/such/file.toml"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/no/such/file.toml"), "{stderr}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "{}\n[admin]\nbind = \"127.0.0.1:0\"",
        GOOD.replace("127.0.0.1:0", &address.to_string())
    );
    let (code, _, stderr) = with_file(&text, |path| told(&vestibule(&["run", "-c", path])));
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&address.to_string()), "{stderr}");
}
