//! Debian's glewlwyd: a real login API with accounts in SQLite. A right password is answered 200 with a cookie, a wrong
//! one 401; names of accounts are taken whatever their case.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{ACCOUNTS, Tried};
use crate::support::eventually;

/// Killed when it is dropped.
pub(super) struct Glewlwyd {
    child: Child,
    folder: TempDir,
    pub(super) address: SocketAddr,
}

/// What the package brings along: the tables, and the account `admin`, whose password is `password`.
const TABLES: &str = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";

pub(super) async fn run() -> Glewlwyd {
    let folder = tempfile::tempdir().unwrap();
    let tables = std::fs::read_to_string(TABLES)
        .unwrap_or_else(|why| panic!("{TABLES}: {why}; tests/peers/install brings it"));
    let database = folder.path().join("accounts");
    fill(&database, &tables);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let conf = folder.path().join("glewlwyd.conf");
    let log = folder.path().join("log");
    std::fs::write(&conf, written(address, &database, &log)).unwrap();
    let child = Command::new("glewlwyd")
        .arg("-c")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| panic!("glewlwyd: {why}; tests/peers/install brings it"));
    let glewlwyd = Glewlwyd {
        child,
        folder,
        address,
    };
    eventually("glewlwyd serves", async || {
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    glewlwyd
}

/// The package's tables, and accounts that all have the password of its own one.
fn fill(database: &PathBuf, tables: &str) {
    let mut sqlite = Command::new("sqlite3")
        .arg(database)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("sqlite3: {why}; tests/peers/install brings it"));
    let mut input = sqlite.stdin.take().unwrap();
    write!(
        input,
        "PRAGMA synchronous = OFF;\n{tables}\n\
         INSERT INTO g_user (gu_username) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {ACCOUNTS})\n\
         SELECT 'user' || i FROM n;\n\
         INSERT INTO g_user_password (gu_id, guw_password)\n\
         SELECT gu_id, (SELECT guw_password FROM g_user_password) FROM g_user WHERE gu_username LIKE 'user%';\n"
    )
    .unwrap();
    drop(input);
    assert!(sqlite.wait().unwrap().success());
}

fn written(address: SocketAddr, database: &std::path::Path, log: &std::path::Path) -> String {
    let modules = [
        ("user_module", "user"),
        ("client_module", "client"),
        ("user_auth_scheme_module", "scheme"),
        ("plugin_module", "plugin"),
    ];
    let modules: String = modules
        .iter()
        .map(|(name, folder)| format!("{name}_path = \"/usr/lib/glewlwyd/{folder}\"\n"))
        .collect();
    format!(
        "port = {}\nbind_address = \"127.0.0.1\"\nexternal_url = \"http://{address}/\"\napi_prefix = \"api\"\n\
         log_mode = \"file\"\nlog_level = \"INFO\"\nlog_file = {log:?}\n\
         cookie_secure = 0\ncookie_same_site = \"empty\"\nsession_key = \"session\"\nsession_expiration = 3600\n\
         admin_scope = \"g_admin\"\nprofile_scope = \"g_profile\"\nlogin_api_enabled = true\n\
         hash_algorithm = \"SHA512\"\n{modules}\
         database = {{ type = \"sqlite3\"; path = {database:?}; }};\n",
        address.port()
    )
}

impl Glewlwyd {
    /// The passwords that were tried, as its own log has them. It tells addresses of wrong ones only.
    pub(super) fn tried(&self) -> Vec<Tried> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        let line = |line: &str| {
            if let Some((_, wrong)) = line.split_once("Authorization invalid for username ") {
                let (user, from) = wrong.split_once(" at IP Address ").unwrap();
                return Some(Tried::new(user, Some(from), false));
            }
            let (_, right) = line.split_once("Event - User '")?;
            let (user, _) = right.split_once("' authenticated with password")?;
            Some(Tried::new(user, None, true))
        };
        log.lines().filter_map(line).collect()
    }
}

impl Drop for Glewlwyd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
