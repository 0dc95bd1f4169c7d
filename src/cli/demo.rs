//! `vestibule demo`: the gateway in front of its embedded identity backend, and a tour that shows what it does.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use clap::Args;

use super::{fail, print_line, show};
use crate::config::load;
use crate::demo::backend::{self, Backend, Settings};
use crate::demo::gateway::{CONFIG, Fitting};
use crate::demo::tour::{self, Place};
use crate::process::{self, Running, Source, Text};
use crate::telemetry::log;
use crate::tls::dev::{self, DevCertificates};

/// Ports on loopback; 0 takes a free one.
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Port of the TLS listener (HTTP/1.1 and HTTP/2).
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https: u16,
    /// Port of the cleartext listener (HTTP/1.1 and h2c).
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http: u16,
    /// Port of the admin listener.
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    admin: u16,
    /// Folder for the development certificate.
    #[arg(long, value_name = "DIR", default_value = "certs/dev")]
    certs: PathBuf,
    /// End after the tour: 0 if everything was as it should be, 1 if not.
    #[arg(long)]
    once: bool,
}

pub(super) fn execute(arguments: &DemoArguments) -> ExitCode {
    let served = process::command_runtime()
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(serve(arguments)));
    match served {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail("a step of the tour did not go as it should"),
        Err(why) => fail(&why),
    }
}

/// Starts both, walks the tour, and serves on unless it is for once. Whether the tour went as it should.
async fn serve(arguments: &DemoArguments) -> Result<bool, String> {
    let certificates = dev::ensure(&arguments.certs, &["localhost", "127.0.0.1", "::1"])
        .map_err(|error| format!("cannot write to {}: {error}", arguments.certs.display()))?;
    let mut fitting = Fitting {
        https: port(arguments.https)?,
        http: port(arguments.http)?,
        admin: port(arguments.admin)?,
        backend: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        certificates: arguments.certs.clone(),
    };
    let backend = start_backend(&fitting).await?;
    fitting.backend = backend.address;
    let running = start_gateway(&fitting)?;
    introduce(&fitting, &backend);
    let right = walk(&fitting, &certificates).await?;
    if arguments.once {
        running.stop();
    } else {
        print_line("\nServing until Ctrl-C.");
    }
    tokio::task::spawn_blocking(move || running.join())
        .await
        .map_err(|error| format!("the gateway ended badly: {error}"))?;
    backend.stop().await;
    Ok(right)
}

/// A free port has to be known before the gateway starts: the backend's tokens name the origin.
fn port(wanted: u16) -> Result<u16, String> {
    if wanted != 0 {
        return Ok(wanted);
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|free| free.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no port is free: {error}"))
}

async fn start_backend(fitting: &Fitting) -> Result<Backend, String> {
    let settings = Settings {
        issuer: Some(fitting.origin()),
        ..Settings::default()
    };
    backend::start(settings)
        .await
        .map_err(|error| format!("the embedded backend cannot start: {error}"))
}

fn start_gateway(fitting: &Fitting) -> Result<Running, String> {
    let join = |errors: Vec<crate::config::ConfigError>| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let mut config = load::from_str("demo.toml", CONFIG).map_err(join)?.config;
    fitting.fit(&mut config);
    // A second event log in one process is refused; the first one serves as well.
    let _ = log::start(&config.log).map(std::mem::ManuallyDrop::new);
    let text = Text::new("demo.toml", show::render(&config));
    process::start(Source::Text(text)).map_err(|why| why.to_string())
}

fn introduce(fitting: &Fitting, backend: &Backend) {
    print_line(&format!(
        "gateway   {} (HTTP/1.1, HTTP/2)   http://localhost:{} (HTTP/1.1, h2c)   admin http://127.0.0.1:{}",
        fitting.origin(),
        fitting.http,
        fitting.admin
    ));
    print_line(&format!(
        "backend   http://{} (embedded)\n",
        backend.address
    ));
}

async fn walk(fitting: &Fitting, certificates: &DevCertificates) -> Result<bool, String> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let place = Place {
        https: loopback(fitting.https),
        http: loopback(fitting.http),
        admin: loopback(fitting.admin),
        root_pem: fs::read_to_string(&certificates.ca)
            .map_err(|error| format!("cannot read {}: {error}", certificates.ca.display()))?,
        root_file: certificates.ca.display().to_string(),
    };
    let mut out = io::stdout();
    let tally = tour::walk(&place, &mut out)
        .await
        .map_err(|error| format!("the tour cannot be printed: {error}"))?;
    Ok(tally.is_right())
}
