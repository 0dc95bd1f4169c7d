//! The gateway under test: the real one, in this process, on free ports.
//!
//! A test writes the routes; listeners (`plain` without TLS, `secure` with), the admin listener and one worker are
//! added where the text has none.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use vestibule::process::{self, Running, Source, StartError, Text};

use super::client::{self, Answer, Call, Client, Via};
use super::issuer::Issuer;
use super::origin::Origin;
use super::{eventually, pki};

/// A gateway in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    text: String,
    listen: String,
    rest: String,
}

/// Keys of the top level come first in `text`, as TOML wants it.
pub fn conf(text: &str) -> Builder {
    Builder {
        text: text.to_owned(),
        listen: String::new(),
        rest: String::new(),
    }
}

/// One public route that forwards everything to `origin`.
pub fn open_to(origin: &Origin) -> Builder {
    conf("[[route]]\nname = \"all\"\nauth = \"none\"\nupstream = \"api\"").upstream("api", origin)
}

impl Builder {
    pub fn upstream(self, name: &str, origin: &Origin) -> Self {
        self.upstream_with(name, origin, "")
    }

    /// With further keys of `[upstream.NAME]`.
    pub fn upstream_with(self, name: &str, origin: &Origin, keys: &str) -> Self {
        let endpoint = origin.endpoint();
        let tls = if origin.speaks.is_tls() {
            format!("tls = {{ ca = {:?} }}\n", pki::SHARED.ca())
        } else {
            String::new()
        };
        self.and(&format!(
            "[upstream.{name}]\nendpoints = [\"{endpoint}\"]\n{tls}{keys}"
        ))
    }

    /// An upstream that is only an address.
    pub fn upstream_at(self, name: &str, scheme: &str, address: SocketAddr, keys: &str) -> Self {
        self.and(&format!(
            "[upstream.{name}]\nendpoints = [\"{scheme}://{address}\"]\n{keys}"
        ))
    }

    /// `[issuer.main]` with the audience `api`.
    pub fn issuer(self, issuer: &Issuer) -> Self {
        self.issuer_with(issuer, "")
    }

    pub fn issuer_with(self, issuer: &Issuer, keys: &str) -> Self {
        let url = issuer.url();
        self.and(&format!(
            "[issuer.main]\nurl = \"{url}\"\naudiences = [\"api\"]\n{keys}"
        ))
    }

    /// Further keys of both listeners that are added.
    pub fn listen(mut self, keys: &str) -> Self {
        self.listen = format!("{keys}\n");
        self
    }

    /// Further tables.
    pub fn and(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.rest.push('\n');
        self
    }

    /// The whole configuration.
    pub fn text(&self) -> String {
        let written = format!("{}\n{}", self.text, self.rest);
        let mut text = String::new();
        if !written.contains("workers =") {
            text.push_str("workers = 1\n");
        }
        text.push_str(&written);
        if !written.contains("[admin]") {
            text.push_str("[admin]\nbind = \"127.0.0.1:0\"\n");
        }
        if !written.contains("[log]") {
            text.push_str("[log]\naccess = \"off\"\n");
        }
        if !written.contains("[listen.") {
            let pair = pki::SHARED.pair("leaf");
            let keys = &self.listen;
            let _ = write!(
                text,
                "[listen.plain]\nbind = \"127.0.0.1:0\"\n{keys}\
                 [listen.secure]\nbind = \"127.0.0.1:0\"\ntls = {{ certificates = [{pair}] }}\n{keys}"
            );
        }
        text
    }

    pub async fn run(self) -> Gateway {
        self.try_run()
            .unwrap_or_else(|why| panic!("{why}\n{}", self.text()))
    }

    pub fn try_run(&self) -> Result<Gateway, StartError> {
        let text = Text::new("test.toml", self.text());
        let running = process::start(Source::Text(Arc::clone(&text)))?;
        Ok(Gateway { running, text })
    }
}

/// A running gateway; it is told to stop when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    running: Running,
    text: Arc<Text>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.stop();
    }
}

impl Gateway {
    /// The address of a listener.
    pub fn at(&self, listener: &str) -> SocketAddr {
        let bound = self
            .running
            .bound
            .iter()
            .find(|bound| bound.listener == listener);
        bound
            .unwrap_or_else(|| panic!("no listener {listener}"))
            .address
    }

    /// The address of the listener that speaks so.
    pub fn address(&self, via: Via) -> SocketAddr {
        self.at(if via.is_tls() { "secure" } else { "plain" })
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.running.admin
    }

    pub async fn connect(&self, via: Via) -> Client {
        client::connect(self.address(via), via).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, via: Via, call: Call) -> Answer {
        self.connect(via).await.send(call).await
    }

    /// The same over cleartext HTTP/1.1.
    pub async fn ask(&self, call: Call) -> Answer {
        self.send(Via::H1, call).await
    }

    pub async fn admin(&self, call: Call) -> Answer {
        client::connect(self.running.admin, Via::H1)
            .await
            .send(call)
            .await
    }

    pub async fn is_ready(&self) -> bool {
        self.admin(client::get("/readyz")).await.status == 200
    }

    pub async fn ready(&self) {
        eventually("the gateway is ready", async || self.is_ready().await).await;
    }

    /// Puts another configuration in force; the answer of `POST /reload`.
    pub async fn reload(&self, conf: &Builder) -> Answer {
        self.text.replace(conf.text());
        self.admin(client::post("/reload", "")).await
    }

    /// The sum of all samples of `name` that bear `labels`.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.admin(client::get("/metrics")).await.text();
        sum(&page, name, labels)
    }

    /// Waits until [`Self::metric`] is `value`.
    pub async fn counted(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name}{labels:?} = {value}");
        eventually(&what, async || {
            (self.metric(name, labels).await - value).abs() < f64::EPSILON
        })
        .await;
    }

    /// Waits until nothing is in flight.
    pub async fn settled(&self) {
        self.counted("vestibule_requests_in_flight", &[], 0.0).await;
        self.counted("vestibule_upstream_in_flight", &[], 0.0).await;
    }

    /// Starts the graceful stop.
    pub fn stop(&self) {
        self.running.stop();
    }
}

/// Adds up samples of the text format.
pub fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (known, borne) = series.split_once('{').unwrap_or((series, ""));
            let bears = |(key, value): &(&str, &str)| {
                let label = format!("{key}=\"{value}\"");
                borne.starts_with(&label) || borne.contains(&format!(",{label}"))
            };
            let wanted = known == name && labels.iter().all(bears);
            wanted.then(|| value.parse::<f64>().unwrap())
        })
        .sum()
}
