//! A walk through the running gateway with real clients: each step prints what was asked, what came back, and the
//! curl line that repeats it, and says whether that is what it should be.
//!
//! `step` holds the steps as a table, `curl` spells one as a command line, `verdict` judges an answer.

mod curl;
mod step;
mod verdict;

use std::io::{self, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::Full;

use self::step::{Credential, Payload, STEPS, Step};
use self::verdict::Verdict;
use super::client::{self, Answer, Client, ClientError, rpc};
use super::oidc;

/// Where the gateway listens, and what proves that it is the one.
#[derive(Clone, Debug)]
pub struct Place {
    /// The listener with TLS.
    pub https: SocketAddr,
    /// The cleartext listener.
    pub http: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The certificate to trust, PEM.
    pub root_pem: String,
    /// Its file, for the curl lines.
    pub root_file: String,
}

/// How the tour went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Steps walked.
    pub steps: usize,
    /// Steps whose answer was not the expected one.
    pub wrong: usize,
}

impl Tally {
    /// Whether every step was as expected.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong == 0
    }
}

/// What is picked up on the way and shown at later doors.
#[derive(Debug, Default)]
struct Bag {
    token: String,
    session: String,
    csrf: String,
}

/// Walks all steps and tells of them on `out`. A step that fails does not end the walk.
///
/// # Errors
/// When `out` cannot be written to.
pub async fn walk(place: &Place, out: &mut (dyn Write + Send)) -> io::Result<Tally> {
    let mut bag = Bag::default();
    let mut tally = Tally { steps: 0, wrong: 0 };
    for step in STEPS {
        let verdict = take(place, step, &mut bag).await;
        tally.steps += 1;
        tally.wrong += usize::from(!verdict.right);
        tell(out, place, tally.steps, step, &verdict)?;
    }
    match tally.wrong {
        0 => writeln!(out, "All {} steps were as expected.", tally.steps)?,
        wrong => writeln!(
            out,
            "{wrong} of {} steps were NOT as expected.",
            tally.steps
        )?,
    }
    out.flush()?;
    Ok(tally)
}

fn tell(
    out: &mut (dyn Write + Send),
    place: &Place,
    number: usize,
    step: &Step,
    verdict: &Verdict,
) -> io::Result<()> {
    let mark = if verdict.right { " ok " } else { "FAIL" };
    writeln!(out, "[{mark}] {number:>2}. {}", step.title)?;
    writeln!(out, "        asked     {}", asked(place, step))?;
    writeln!(out, "        answered  {}", verdict.came)?;
    if !verdict.right {
        writeln!(out, "        expected  {}", step.expect)?;
    }
    writeln!(out, "        again     {}", curl::line(place, step))?;
    writeln!(out)?;
    out.flush()
}

fn asked(place: &Place, step: &Step) -> String {
    let mut asked = format!("{} {}", step.method, step.url(place));
    for part in [
        step.door.protocol(),
        step.credential.words(),
        step.tries.words(),
    ] {
        if !part.is_empty() {
            asked.push_str(", ");
            asked.push_str(part);
        }
    }
    asked
}

/// One connection, and as many requests as the step has tries.
async fn take(place: &Place, step: &Step, bag: &mut Bag) -> Verdict {
    let mut connection = None;
    let mut statuses = Vec::new();
    let mut verdict = Verdict::wrong("nothing");
    for _ in 0..step.tries.count() {
        if !statuses.is_empty() {
            tokio::time::sleep(step.tries.pause()).await;
        }
        verdict = match ask(place, step, bag, &mut connection).await {
            Ok(answer) => {
                statuses.push(answer.status.as_u16());
                verdict::judge(step, &statuses, answer, bag)
            }
            Err(error) => {
                statuses.push(0);
                connection = None;
                Verdict::wrong(error.to_string())
            }
        };
        if verdict.right {
            break;
        }
    }
    verdict
}

async fn ask(
    place: &Place,
    step: &Step,
    bag: &Bag,
    connection: &mut Option<Client>,
) -> Result<Answer, ClientError> {
    let request = request(place, step, bag)?;
    let mut client = match connection.take() {
        Some(client) => client,
        None => client::connect(&step.door.target(place)).await?,
    };
    let answer = client.send(request).await;
    *connection = Some(client);
    answer
}

fn request(place: &Place, step: &Step, bag: &Bag) -> Result<Request<Full<Bytes>>, ClientError> {
    let bad = |error: &dyn std::fmt::Display| ClientError::BadRequest(error.to_string());
    let uri: Uri = step.url(place).parse().map_err(|error| bad(&error))?;
    let mut request = match &step.payload {
        Payload::Hello(wire) => rpc::request(*wire, &uri, &HeaderMap::new(), &step::hello()),
        payload => {
            let mut request = Request::new(Full::from(payload.text()));
            *request.uri_mut() = uri;
            if let Some(content_type) = payload.content_type() {
                let content_type = HeaderValue::from_static(content_type);
                request.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            request
        }
    };
    *request.method_mut() = step.method.parse().map_err(|error| bad(&error))?;
    for (name, value) in credentials(step.credential, bag) {
        let value = HeaderValue::from_str(&value).map_err(|error| bad(&error))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn credentials(credential: Credential, bag: &Bag) -> Vec<(&'static str, String)> {
    let cookies = format!(
        "identsphere_at={}; identsphere_csrf={}",
        bag.session, bag.csrf
    );
    match credential {
        Credential::None => Vec::new(),
        Credential::Client => vec![(AUTHORIZATION.as_str(), oidc::basic_authorization())],
        Credential::Token => vec![(AUTHORIZATION.as_str(), format!("Bearer {}", bag.token))],
        Credential::Forged => vec![(AUTHORIZATION.as_str(), format!("Bearer {}", forged(bag)))],
        Credential::Cookies => vec![(COOKIE.as_str(), cookies)],
        Credential::CookiesAndCsrf => vec![
            (COOKIE.as_str(), cookies),
            ("x-csrf-token", bag.csrf.clone()),
        ],
    }
}

/// The claims are as they were signed; only the end of the signature is another.
fn forged(bag: &Bag) -> String {
    let kept = bag.token.len().saturating_sub(FORGED_END.len());
    format!("{}{FORGED_END}", bag.token.get(..kept).unwrap_or_default())
}

/// What the signature of the forged token ends with; the curl line cuts as many characters off.
const FORGED_END: &str = "AAAAAA";

#[cfg(test)]
mod tests;
