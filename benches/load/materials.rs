//! Writes what `benches/load/run` needs into a folder: `chain.pem` and `key.pem` (P-256, for the own machine),
//! `jwks.json`, and `token`, signed with ES256 by the issuer of that key set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use vestibule::demo::{Settings, Signing, backend, client};
use vestibule::process::command_runtime;
use vestibule::tls::dev;
use vestibule::types::clock;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "bench";
/// Longer than any run.
const LIFETIME: u64 = 24 * 3600;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return fail(&"usage: load_materials FOLDER");
    };
    match make(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

#[allow(clippy::print_stderr, reason = "a command line tool")]
fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("load_materials: {why}");
    ExitCode::FAILURE
}

fn make(folder: &Path) -> Outcome {
    let made = dev::ensure(folder, dev::LOCAL_NAMES)?;
    fs::rename(made.chain, folder.join("chain.pem"))?;
    fs::rename(made.key, folder.join("key.pem"))?;
    command_runtime()?.block_on(keys_and_token(folder))
}

async fn keys_and_token(folder: &Path) -> Outcome {
    let backend = backend::start(Settings {
        issuer: Some(ISSUER.to_owned()),
        audience: AUDIENCE.to_owned(),
        ..Settings::default()
    })
    .await?;
    let ends = clock::unix_seconds(clock::wall()) + LIFETIME;
    let token = backend.token(Signing::Es256).claim("exp", ends).sign()?;
    let mut client = client::connect(&client::Target::http1(backend.address)).await?;
    let keys = client
        .send(Request::get("/oauth/keys").body(Full::new(Bytes::new()))?)
        .await?;
    fs::write(folder.join("jwks.json"), keys.body)?;
    fs::write(folder.join("token"), token)?;
    drop(client);
    backend.stop().await;
    Ok(())
}
