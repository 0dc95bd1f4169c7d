//! What operators read when a file is wrong.

use std::fs;

use super::*;
use crate::config::{KeyPath, Problems};

const MAIN: &str = "vestibule.toml";

/// Every error as it is printed, without the name of the main file.
fn errors(text: &str) -> Vec<String> {
    printed(&from_str(MAIN, text).unwrap_err(), "vestibule.toml:")
}

fn printed(errors: &[ConfigError], prefix: &str) -> Vec<String> {
    errors
        .iter()
        .map(|error| error.to_string().replace(prefix, ""))
        .collect()
}

/// `text` has one mistake, and it is printed as `expected`.
fn check(text: &str, expected: &str) {
    assert_eq!(errors(text), [expected], "{text}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(from_str(MAIN, "").unwrap().config, Config::default());
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = r#"drain_timeout = "10 parsecs"
[listen.public]
bind = 8080
[upstream.api]
endpoints = ["h2c://api:8080"]
balnce = "round_robin"
[issuer.main]
[[route]]
upsteam = "api"
auth = "none"
[[route]]
grpc_web = "tranlate"
"#;
    assert_eq!(
        errors(text),
        [
            r#"1:17: drain_timeout: `10 parsecs` is no duration such as "250ms", "10s", "5m", "1h" or "2d""#,
            "3:8: listen.public.bind: expected a string or a list of strings, found a number",
            "6:1: upstream.api.balnce: unknown key `balnce` (did you mean `balance`?)",
            "7:1: issuer.main: missing key `audiences`",
            "7:1: issuer.main: missing key `url`",
            "9:1: route[0].upsteam: unknown key `upsteam` (did you mean `upstream`?)",
            "11:1: route[1]: missing key `auth`",
            "12:12: route[1].grpc_web: unknown word `tranlate` (did you mean `translate`?)",
        ]
    );
}

#[test]
fn a_misspelt_key_is_not_missed_as_well() {
    check(
        "[[route]]\nauht = \"none\"",
        "2:1: route[0].auht: unknown key `auht` (did you mean `auth`?)",
    );
}

#[test]
fn a_bad_value_is_not_missed_as_well() {
    check(
        "[[route]]\nauth = \"none\"\ncsrf = {}",
        "3:8: route[0].csrf: missing key `origins`",
    );
}

#[test]
fn an_unknown_key_without_a_near_word_lists_what_there_is() {
    check(
        "[log]\nbanana = 1",
        "2:1: log.banana: unknown key `banana` (keys here: level, access)",
    );
    let listed = errors("[[route]]\nauth = \"none\"\nzzzzzzzz = 1");
    assert!(
        listed[0].contains("keys here: name, listen, host"),
        "{listed:?}"
    );
    assert!(listed[0].ends_with("more)"), "{listed:?}");
}

#[test]
fn auth_says_what_it_may_be() {
    let wanted = r#"expected "none", "deny" or a table such as { any = ["main"] }"#;
    check(
        "[[route]]\nauth = \"nobody\"",
        &format!("2:8: route[0].auth: {wanted}, found `nobody`"),
    );
    check(
        "[[route]]\nauth = true",
        &format!("2:8: route[0].auth: {wanted}, found true or false"),
    );
    check(
        "[[route]]\nauth = { any = [], rolls = [] }",
        "2:20: route[0].auth.rolls: unknown key `rolls` (did you mean `roles`?)",
    );
}

#[test]
fn certificates_are_folders_or_pairs() {
    let tls = |certificates: &str| {
        format!("[listen.a]\nbind = \"[::]:1\"\ntls.certificates = {certificates}")
    };
    assert!(from_str(MAIN, &tls(r#"["live", { chain = "a", key = "b" }]"#)).is_ok());
    let at = "listen.a.tls.certificates";
    check(
        &tls(r#"["live", { chain = "a" }]"#),
        &format!("3:29: {at}[1]: missing key `key`"),
    );
    check(
        &tls(r#"[{ chain = "a", key = "b", kee = 1 }]"#),
        &format!("3:47: {at}[0].kee: unknown key `kee` (did you mean `key`?)"),
    );
    check(
        &tls("[5]"),
        &format!(
            "3:21: {at}[0]: expected a folder, or a pair such as {{ chain = \"site.crt\", key = \"site.key\" }}, found a number"
        ),
    );
    check(
        &tls(r#"["live"]"#).replace("certificates", "certificate"),
        "3:5: listen.a.tls.certificate: unknown key `certificate` (did you mean `certificates`?)",
    );
}

#[test]
fn a_secret_in_the_place_of_its_reference_is_refused_and_not_repeated() {
    for value in [
        "\"hunter2\"",
        "{ env = \"A\", file = \"B\" }",
        "{ evn = \"hunter2\" }",
    ] {
        let text = format!("[issuer.a]\nurl = \"u\"\naudiences = []\nsecret = {value}");
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("issuer.a.secret"), "{errors:?}");
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
    }
    check(
        "[upstream.a]\nendpoints = [\"http://admin:hunter2@a:1\"]",
        "2:14: upstream.a.endpoints[0]: an endpoint holds no user information (`user:password@`)",
    );
}

#[test]
fn words_with_and_without_a_value_are_told_apart() {
    check(
        "[log]\naccess = \"file\"",
        "2:10: log.access: `file` needs a value: write { file = ... }",
    );
    check(
        "[log]\naccess = { off = true }",
        "2:10: log.access: `off` takes no value: write \"off\"",
    );
    check(
        "[log]\naccess = { fil = 1 }",
        "2:12: log.access.fil: unknown key `fil` (did you mean `file`?)",
    );
    check(
        "[log]\naccess = { file = 1 }",
        "2:19: log.access.file: expected a path, found a number",
    );
    check(
        "[log]\naccess = 1",
        "2:10: log.access: expected one of `off`, `stdout`, `file`",
    );
}

#[test]
fn numbers_out_of_range_and_wrong_types_are_said_in_words() {
    check(
        "workers = 0",
        "1:11: workers: expected a whole number from 1, found `0`",
    );
    check(
        "workers = 1.5",
        "1:11: workers: expected a whole number from 1, found a decimal number",
    );
    check(
        "max_in_flight = -1",
        "1:17: max_in_flight: expected a whole number from 0 to 4294967295, found `-1`",
    );
    check(
        "max_in_flight = 99999999999999999999999999999999999999999",
        "1:17: max_in_flight: the number is out of every range",
    );
    check(
        "drain_timeout = 30",
        "1:17: drain_timeout: expected a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"2d\", found a number",
    );
    check(
        "state_dir = 2020-01-01",
        "1:13: state_dir: expected a path, found a date",
    );
    check("route = 5", "1:9: route: expected a list, found a number");
    check(
        "listen = []",
        "1:10: listen: expected a table, found a list",
    );
    check(
        "listen.a = 5",
        "1:12: listen.a: expected a table, found a number",
    );
}

#[test]
fn addresses_are_explained_by_example() {
    check(
        "[listen.a]\nbind = [\"[::]:80\", \":80\"]",
        "2:20: listen.a.bind[1]: invalid socket address syntax (write address and port, such as \"0.0.0.0:443\" or \"[::]:443\")",
    );
    check(
        "[listen.a]\nbind = \"[::]:80\"\ntrusted_proxies = [\"10.0.0.1\"]",
        "3:20: listen.a.trusted_proxies[0]: invalid IP address syntax (write \"10.0.0.7\", or for a network \"10.0.0.0/8\" or \"2001:db8::/32\")",
    );
}

#[test]
fn broken_syntax_is_reported_line_by_line_and_alone() {
    let errors = errors(
        "drain_timeout = 10s\nworkers = 1\nworkers = 2\nbanana = 1\n[listen.a]\n[listen.a]\n",
    );
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("1:17: "), "{errors:?}");
    assert_eq!(errors[1], "3:1: `workers` is written twice");
    assert_eq!(errors[2], "6:9: `a` is written twice");
}

#[test]
fn columns_count_characters() {
    check(
        "state_dir = \"é\"\nlog = { level = \"é\", x = 1 }",
        "2:22: log.x: unknown key `x` (keys here: level, access)",
    );
}

#[test]
fn a_hopeless_file_ends_within_bounds() {
    let text = "[[route]]\n".repeat(5_000);
    let errors = errors(&text);
    assert!(errors.len() < 500);
    assert!(
        errors.last().unwrap().contains("further mistakes"),
        "{errors:?}"
    );
}

#[test]
fn mistakes_found_later_are_located_and_sorted() {
    let text = "[[route]]\nauth = \"none\"\nupstream = \"apo\"\n[[route]]\nauth = \"none\"\n[limit.a]\nrate = \"1/s\"\n";
    let loaded = from_str(MAIN, text).unwrap();
    let root = KeyPath::root();
    let mut problems = Problems::default();
    problems.push(
        &root.key("limit").key("a").key("burst"),
        "the parent's place",
    );
    problems.push(&root.key("route").index(1).key("auth"), "second");
    problems.push(&root.key("route").index(0).key("upstream"), "first");
    problems.push(&root.key("listen"), "the whole file");
    let located = loaded.sources.locate(problems.into_errors());
    assert_eq!(
        printed(&located, "vestibule.toml:"),
        [
            "1:1: listen: the whole file",
            "3:12: route[0].upstream: first",
            "5:8: route[1].auth: second",
            "6:1: limit.a.burst: the parent's place",
        ]
    );
}

/// A folder with these files; the first is the main one.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self) -> Result<Loaded, Vec<ConfigError>> {
        from_file(&self.0.path().join("main.toml"))
    }

    fn errors(&self) -> Vec<String> {
        let prefix = format!("{}/", self.0.path().display());
        printed(&self.load().unwrap_err(), &prefix)
    }
}

#[test]
fn included_tables_are_merged_and_lists_are_appended_in_order() {
    let folder = Folder::new(&[
        (
            "main.toml",
            "include = [\"d/*.toml\", \"one.toml\"]\n[[route]]\nname = \"main\"\nauth = \"none\"\n[limit.main]\nrate = \"1/s\"\n",
        ),
        ("d/b.toml", "[[route]]\nname = \"b\"\nauth = \"none\"\n"),
        (
            "d/a.toml",
            "[limit.a]\nrate = \"1/s\"\n[upstream.u]\nendpoints = []\n[[route]]\nname = \"a\"\nauth = \"none\"\n",
        ),
        ("d/.hidden.toml", "broken"),
        ("d/note.txt", "broken"),
        (
            "one.toml",
            "[[route]]\nname = \"one\"\nauth = \"none\"\n[[test]]\nurl = \"u\"\nexpect = \"a\"\n",
        ),
    ]);
    let Loaded { config, sources } = folder.load().unwrap();
    let names: Vec<_> = config
        .route
        .iter()
        .filter_map(|route| route.name.as_deref())
        .collect();
    assert_eq!(names, ["main", "a", "b", "one"]);
    assert!(config.limit.keys().eq(["a", "main"]));
    assert_eq!((config.upstream.len(), config.test.len()), (1, 1));
    assert_eq!(sources.files().count(), 4);

    let place = sources.place(&KeyPath::root().key("route").index(2).key("name"));
    assert!(place.file.ends_with("d/b.toml"), "{place}");
    assert_eq!((place.line, place.column), (2, 8));
}

#[test]
fn mistakes_in_included_files_name_those_files() {
    let folder = Folder::new(&[
        (
            "main.toml",
            "include = [\"d/*.toml\"]\nworker = 1\n[[route]]\nauth = \"none\"\n",
        ),
        (
            "d/a.toml",
            "workers = 1\ninclude = [\"x\"]\n[log]\nlevel = \"info\"\n[[routes]]\n",
        ),
        ("d/b.toml", "\n[[route]]\nmax_body = 5\n"),
        ("d/c.toml", "listen = 5\nroute = \"x\"\n"),
    ]);
    assert_eq!(
        folder.errors(),
        [
            "main.toml:2:1: worker: unknown key `worker` (did you mean `workers`?)",
            "d/a.toml:1:1: workers: `workers` belongs into the main file",
            "d/a.toml:2:1: include: an included file includes no further files",
            "d/a.toml:3:2: log: `log` belongs into the main file",
            "d/a.toml:5:3: routes: unknown key `routes` (did you mean `route`?)",
            "d/b.toml:2:1: route[1]: missing key `auth`",
            "d/b.toml:3:12: route[1].max_body: expected a size such as \"512B\", \"64KiB\", \"5MiB\" or \"1GiB\", found a number",
            "d/c.toml:1:1: listen: expected tables such as [listen.NAME]",
            "d/c.toml:2:1: route: expected tables such as [[route]]",
        ]
    );
}

#[test]
fn a_name_defined_twice_names_both_places() {
    let folder = Folder::new(&[
        (
            "main.toml",
            "include = [\"a.toml\"]\n[limit.x]\nrate = \"1/s\"\n",
        ),
        ("a.toml", "\n[limit.x]\nrate = \"2/s\"\n"),
    ]);
    let errors = folder.errors();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with("a.toml:2:1: limit.x: `limit.x` is defined twice, first at "),
        "{errors:?}"
    );
    assert!(errors[0].ends_with("main.toml:2:1"), "{errors:?}");
}

#[test]
fn a_pattern_that_cannot_be_meant_is_an_error() {
    let folder = Folder::new(&[
        (
            "main.toml",
            "include = [\n\"absent.toml\",\n\"absent/*.toml\",\n\"*/a.toml\",\n\"[ab].toml\",\n5,\n\"empty/*.toml\"]",
        ),
        ("empty/note.txt", ""),
    ]);
    let errors = folder.errors();
    assert_eq!(errors.len(), 5, "{errors:?}");
    assert!(
        errors[0].starts_with("main.toml:2:1: include[0]: cannot read"),
        "{errors:?}"
    );
    assert!(
        errors[1].starts_with("main.toml:3:1: include[1]: cannot list"),
        "{errors:?}"
    );
    assert!(errors[2].contains("in the file name alone"), "{errors:?}");
    assert!(errors[3].contains("in the file name alone"), "{errors:?}");
    assert_eq!(
        errors[4],
        "main.toml:6:1: include[4]: expected a string, found a number"
    );
}

#[test]
fn a_file_that_two_patterns_name_is_read_once() {
    let folder = Folder::new(&[
        ("main.toml", "include = [\"*.toml\", \"a.toml\"]\n"),
        ("a.toml", "[limit.x]\nrate = \"1/s\"\n"),
    ]);
    assert_eq!(folder.load().unwrap().config.limit.len(), 1);
}

#[test]
fn broken_syntax_of_every_file_is_reported() {
    let folder = Folder::new(&[
        ("main.toml", "include = [\"a.toml\"]\nworkers = \n"),
        ("a.toml", "[limit.x\n"),
    ]);
    let errors = folder.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("main.toml:2:"), "{errors:?}");
    assert!(errors[1].starts_with("a.toml:1:"), "{errors:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = from_file(Path::new("/nonexistent/vestibule.toml")).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .starts_with("cannot read /nonexistent/vestibule.toml: ")
    );
    let folder = Folder::new(&[]);
    fs::write(folder.0.path().join("main.toml"), b"# \xff").unwrap();
    assert!(folder.errors()[0].contains("no UTF-8"));
}

#[test]
fn every_top_level_key_has_a_way_to_be_included_or_not() {
    let schema = crate::config::schema::json();
    let keys = schema["properties"].as_object().unwrap();
    for (key, schema) in keys {
        let lists = [include::NAMED, include::LISTS, include::MAIN_ONLY];
        let found: Vec<_> = lists
            .iter()
            .filter(|list| list.contains(&key.as_str()))
            .collect();
        assert_eq!(
            found.len(),
            1,
            "{key} belongs in one list of load/include.rs"
        );
        assert_eq!(
            include::NAMED.contains(&key.as_str()),
            schema.get("additionalProperties").is_some(),
            "{key}"
        );
    }
}

#[test]
fn absurd_nesting_is_refused_and_not_followed() {
    for text in [
        format!("a{} = 1", ".a".repeat(100_000)),
        format!("a = {}", "[".repeat(100_000)),
        format!("[a{}]", ".a".repeat(100_000)),
    ] {
        assert!(from_str(MAIN, &text).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused_with_places(start in 0usize..16_000, length in 0usize..400, put in "[\\[\\]{}=\"'.,#\n a-z0-9é]{0,12}") {
        let whole = crate::config::tests::everything();
        let boundary = |near: usize| (0..=near.min(whole.len())).rev().find(|&at| whole.is_char_boundary(at)).unwrap();
        let (start, end) = (boundary(start), boundary(start + length));
        let damaged = format!("{}{put}{}", &whole[..start], &whole[end..]);
        if let Err(errors) = from_str(MAIN, &damaged) {
            proptest::prop_assert!(!errors.is_empty());
            let lines = damaged.lines().count() + 1;
            for place in errors.iter().filter_map(|error| error.place.as_ref()) {
                proptest::prop_assert!((1..=lines).contains(&place.line), "{}", place);
            }
        }
    }
}
