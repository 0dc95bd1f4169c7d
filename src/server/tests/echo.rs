//! A server with a handler that answers by path.

use super::*;

/// Answers by path: `/` at once, `/gate` when the gate opens, `/body` once it has read one, `/bytes/N` with N bytes,
/// `/big` with more than any buffer holds, `/panic` never.
pub(super) struct Echo {
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) tls: Option<Termination>,
    pub(super) trusted: bool,
    pub(super) gate: Notify,
    pub(super) arrived: Semaphore,
    /// Method and path of each request.
    pub(super) seen: Mutex<Vec<String>>,
    pub(super) dropped: Semaphore,
    pub(super) events: Mutex<HashMap<Event, u32>>,
    pub(super) changed: Notify,
}

impl Handler for Echo {
    type Body = Body;
    type Presence = ();

    fn present(&self, _: usize, _: Protocol) {}

    async fn handle(
        self: Arc<Self>,
        conn: Arc<ConnFacts>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        self.arrived.add_permits(1);
        let line = format!("{} {}", request.method(), request.uri().path());
        self.seen.lock().push(line);
        let body = match request.uri().path() {
            "/gate" => {
                let _dropped = Dropped(Arc::clone(&self));
                self.gate.notified().await;
                Body::full("late")
            }
            "/big" => Body::full(Bytes::from(vec![b'x'; 64 << 20])),
            "/body" => match request.into_body().collect().await {
                Ok(body) => Body::full(body.to_bytes()),
                Err(_) => return Rejection::new(Reason::BadBody).render(Dialect::Http, "test"),
            },
            "/panic" => panic!("on purpose"),
            "/upgrade" => return upgrade(request),
            "/facts" => Body::full(format!(
                "{} {} {}",
                conn.scheme.as_str(),
                conn.protocol.as_str(),
                conn.server_name.as_deref().unwrap_or("-")
            )),
            path => match path.strip_prefix("/bytes/") {
                Some(count) => Body::full(vec![b'x'; count.parse().unwrap()]),
                None => Body::full("hello"),
            },
        };
        Response::new(body)
    }

    fn refuse(&self, _: &Arc<ConnFacts>, why: Rejection) -> Response<Body> {
        why.render(Dialect::Http, "test")
    }

    fn panicked(&self, _: &ConnFacts) -> Response<Body> {
        let mut response = Response::new(Body::full("sorry"));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }

    fn limits(&self, _: usize) -> Arc<ListenerLimits> {
        Arc::clone(&self.limits)
    }

    fn tls(&self, _: usize) -> Option<Arc<rustls::ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(tls.config()))
    }

    fn trusts(&self, _: usize, _: IpAddr) -> bool {
        self.trusted
    }

    fn note(&self, _: usize, event: Event) {
        *self.events.lock().entry(event).or_default() += 1;
        self.changed.notify_waiters();
    }
}

/// Switches protocols, and sends back what comes then.
pub(super) fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    drop(task::spawn("tunnel", async move {
        let tunnel = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
        let (mut reader, mut writer) = tokio::io::split(tunnel);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = http::HeaderValue::from_static("upgrade");
    response
        .headers_mut()
        .insert(http::header::CONNECTION, upgrade);
    let protocol = http::HeaderValue::from_static("echo");
    response
        .headers_mut()
        .insert(http::header::UPGRADE, protocol);
    response
}

/// Tells when it is dropped.
pub(super) struct Dropped(Arc<Echo>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.add_permits(1);
    }
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) handler: Arc<Echo>,
    pub(super) listener: Arc<Listener>,
    pub(super) drain: Drain,
}

pub(super) fn run(limits: ListenerLimits) -> Running {
    run_with(limits, None, false)
}

pub(super) fn run_with(limits: ListenerLimits, tls: Option<Termination>, trusted: bool) -> Running {
    run_among(limits, tls, trusted, usize::MAX)
}

pub(super) fn run_among(
    limits: ListenerLimits,
    tls: Option<Termination>,
    trusted: bool,
    most_in_process: usize,
) -> Running {
    let handler = Arc::new(Echo {
        limits: Arc::new(limits),
        tls,
        trusted,
        gate: Notify::new(),
        arrived: Semaphore::new(0),
        seen: Mutex::default(),
        dropped: Semaphore::new(0),
        events: Mutex::default(),
        changed: Notify::new(),
    });
    let socket = open("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    let listener = Listener::new(0, "test", most_in_process);
    let drain = Drain::new();
    drop(task::spawn(
        "accept",
        accept(
            Arc::clone(&listener),
            socket,
            Arc::clone(&handler),
            drain.clone(),
        ),
    ));
    Running {
        address,
        handler,
        listener,
        drain,
    }
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until `event` was noted.
    pub(super) async fn saw(&self, event: Event) {
        let seen = async {
            loop {
                let changed = self.handler.changed.notified();
                if self.handler.events.lock().contains_key(&event) {
                    return;
                }
                changed.await;
            }
        };
        let seen = timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "{event:?} not in {:?}", self.handler.events);
    }
}
