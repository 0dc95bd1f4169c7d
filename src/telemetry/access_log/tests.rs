use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::Value;

use super::sink::{self, Sink};
use super::{AccessLog, Outcome, Record};
use crate::config;
use crate::types::{AuthMethod, Dialect, Protocol, Reason};

fn record() -> Record<'static> {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_162_530_250),
        request_id: "01J",
        listener: "public",
        client: None,
        peer: "192.0.2.1:4711".parse().unwrap(),
        protocol: Protocol::Http2,
        tls: true,
        method: &Method::GET,
        host: None,
        path: None,
        query: false,
        route: None,
        dialect: Dialect::Http,
        status: None,
        grpc_status: None,
        reason: None,
        detail: "",
        policy: None,
        limit: None,
        limit_observed: None,
        user: None,
        auth_method: None,
        auth_source: None,
        upstream: None,
        endpoint: None,
        attempts: 0,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::from_micros(1_234),
        first_byte: None,
        outcome: Outcome::Complete,
        ended: None,
        user_agent: None,
    }
}

fn line(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    record.write_line(&mut out);
    String::from_utf8(out).unwrap()
}

fn parse(record: &Record<'_>) -> Value {
    let line = line(record);
    assert_eq!(line.matches('\n').count(), 1, "one line");
    assert!(line.ends_with('\n'));
    serde_json::from_str(&line).unwrap()
}

mod lines {
    use super::*;

    #[test]
    fn what_is_unknown_leaves_no_key() {
        let expected = concat!(
            r#"{"time":"2026-11-20T08:15:30.250Z","request_id":"01J","listener":"public","peer":"192.0.2.1:4711","#,
            r#""protocol":"h2","tls":true,"method":"GET","query":false,"dialect":"http","attempts":0,"bytes_in":0,"#,
            r#""bytes_out":0,"duration_us":1234,"outcome":"complete"}"#,
            "\n"
        );
        assert_eq!(line(&record()), expected);
    }

    #[test]
    fn what_is_known_has_its_key() {
        let full = Record {
            client: Some("2001:db8::1".parse().unwrap()),
            host: Some("auth.example.com"),
            path: Some("/v1/auth/login"),
            query: true,
            route: Some("login"),
            dialect: Dialect::GrpcWeb,
            status: Some(StatusCode::TOO_MANY_REQUESTS),
            grpc_status: Some(8),
            reason: Some(Reason::RateLimited),
            detail: "the bucket is empty",
            policy: Some("login"),
            limit: Some("login"),
            limit_observed: Some("api"),
            user: Some("ada"),
            auth_method: Some(AuthMethod::Session),
            auth_source: Some("browser"),
            upstream: Some("api"),
            endpoint: Some("h2c://10.0.0.5:8080"),
            attempts: 2,
            bytes_in: 10,
            bytes_out: 20,
            first_byte: Some(Duration::from_millis(1)),
            outcome: Outcome::ClientGone,
            user_agent: Some(b"curl/8"),
            ..record()
        };
        let expected = serde_json::json!({
            "time": "2026-11-20T08:15:30.250Z", "request_id": "01J", "listener": "public",
            "client": "2001:db8::1", "peer": "192.0.2.1:4711", "protocol": "h2", "tls": true,
            "method": "GET", "host": "auth.example.com", "path": "/v1/auth/login", "query": true,
            "route": "login", "dialect": "grpc-web", "user_agent": "curl/8",
            "reason": "rate_limited", "detail": "the bucket is empty", "policy": "login",
            "limit": "login", "limit_observed": "api", "user": "ada", "auth_method": "session", "auth_source": "browser",
            "status": 429, "grpc_status": 8, "upstream": "api", "endpoint": "h2c://10.0.0.5:8080",
            "attempts": 2, "bytes_in": 10, "bytes_out": 20, "duration_us": 1234,
            "first_byte_us": 1000, "outcome": "client_gone",
        });
        assert_eq!(parse(&full), expected);
    }

    #[test]
    fn a_user_agent_is_cut_and_need_not_be_text() {
        let hostile = [b"\"}\n{\\\x00\x1b[2J\xff\xfe".as_slice(), &[b'x'; 5_000]].concat();
        let shown = parse(&Record {
            user_agent: Some(&hostile),
            ..record()
        });
        let shown = shown["user_agent"].as_str().unwrap();
        assert!(shown.starts_with("\"}\n{\\\u{0}\u{1b}[2J\u{fffd}\u{fffd}xxx"));
        assert_eq!(shown.chars().count(), 128);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(10_000);
        let shown = parse(&Record {
            path: Some(&long),
            detail: &long,
            user: Some(&long),
            ..record()
        });
        assert_eq!(shown["path"].as_str().unwrap().len(), 1_024);
        assert_eq!(shown["user"].as_str().unwrap().len(), 256);
        assert_eq!(shown["detail"].as_str().unwrap().len(), 256);
    }

    proptest! {
        #[test]
        fn any_text_makes_one_line_of_json(
            text in any::<String>(),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let hostile = Record {
                request_id: &text,
                listener: &text,
                host: Some(&text),
                path: Some(&text),
                route: Some(&text),
                detail: &text,
                policy: Some(&text),
                limit: Some(&text),
                limit_observed: Some(&text),
                user: Some(&text),
                auth_source: Some(&text),
                upstream: Some(&text),
                endpoint: Some(&text),
                user_agent: Some(&bytes),
                ..record()
            };
            let shown = parse(&hostile);
            if text.len() <= 256 {
                prop_assert_eq!(shown["user"].as_str(), Some(&*text));
            }
        }

        #[test]
        fn no_line_is_longer_than_the_queue_reckons_with(byte in 0..32u8) {
            let text = char::from(byte).to_string().repeat(10_000);
            let hostile = Record {
                host: Some("h"),
                path: Some(&text),
                detail: &text,
                user: Some("u"),
                user_agent: Some(text.as_bytes()),
                ..record()
            };
            prop_assert!(line(&hostile).len() < 10_000);
        }
    }
}

mod queue {
    use super::*;

    /// Says when it is written to, and then waits to be let go.
    struct Stuck {
        reached: Sender<()>,
        release: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            let _ = self.release.recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_waiting() {
        let (reached, is_reached) = mpsc::channel();
        let (let_go, release) = mpsc::channel();
        let written = Arc::default();
        let stuck = Stuck {
            reached,
            release,
            written: Arc::clone(&written),
        };
        let (log, guard) = AccessLog::over(Sink::new(stuck), 4);
        log.write(&record());
        is_reached.recv().unwrap();
        for _ in 0..100 {
            log.write(&record());
        }
        assert_eq!(log.dropped(), 96, "four wait, the others are dropped");

        drop(let_go);
        drop(guard);
        let written = String::from_utf8(written.lock().clone()).unwrap();
        assert_eq!(written.lines().count(), 5);
        assert_eq!(log.dropped(), 96);
    }

    #[test]
    fn a_stuck_reader_does_not_hold_up_the_end() {
        let (reached, is_reached) = mpsc::channel();
        let (_let_go, release) = mpsc::channel();
        let stuck = Stuck {
            reached,
            release,
            written: Arc::default(),
        };
        let (log, guard) = AccessLog::over(Sink::new(stuck), 1);
        log.write(&record());
        is_reached.recv().unwrap();
        log.write(&record());
        drop(guard);
    }

    #[test]
    fn a_log_that_is_off_does_nothing() {
        let off = config::Log {
            access: config::AccessLog::Off,
            ..config::Log::default()
        };
        let (log, _guard) = AccessLog::start(&off).unwrap();
        assert!(!log.is_on());
        log.write(&record());
        log.reopen();
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_file_is_appended_to_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let on = config::Log {
            access: config::AccessLog::File(path.clone()),
            ..config::Log::default()
        };
        for _ in 0..2 {
            let (log, guard) = AccessLog::start(&on).unwrap();
            assert!(log.is_on());
            log.write(&record());
            drop(guard);
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            line(&record()).repeat(2)
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    }

    #[test]
    fn a_destination_that_cannot_be_opened_is_named() {
        let on = config::Log {
            access: config::AccessLog::File("/nonexistent/access.log".into()),
            ..config::Log::default()
        };
        let error = AccessLog::start(&on).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/access.log"), "{error}");
    }
}

mod sinks {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        held: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.held.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk(room: usize) -> Sink<Disk> {
        Sink::new(Disk {
            room,
            held: Vec::new(),
        })
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_left_with_whole_ones() {
        let mut sink = disk(9);
        for line in ["one 1\n", "two 2\n", "three\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }
        sink.flush().unwrap();
        assert_eq!(sink.lost().load(Ordering::Relaxed), 2);

        sink.write_all(b"lost\n").unwrap();
        sink.flush().unwrap();
        assert_eq!(sink.lost().load(Ordering::Relaxed), 3);

        sink.disk().room = 100;
        sink.write_all(b"four\n").unwrap();
        sink.flush().unwrap();
        sink.write_all(b"five\n").unwrap();
        sink.flush().unwrap();
        assert_eq!(sink.disk().held, b"one 1\ntwo\nfour\nfive\n");
        assert_eq!(sink.lost().load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_batch_is_written_when_it_is_full() {
        let mut sink = disk(usize::MAX);
        let line = "x".repeat(999) + "\n";
        for _ in 0..100 {
            sink.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(sink.disk().held.len(), 65_000);
        sink.flush().unwrap();
        assert_eq!(sink.disk().held.len(), 100_000);
    }

    #[test]
    fn a_rotated_file_is_opened_anew_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut sink = sink::file(&path).unwrap();
        let say = |sink: &mut Sink<_>, text: &str| {
            sink.write_all(text.as_bytes()).unwrap();
            sink.flush().unwrap();
        };
        say(&mut sink, "one\n");
        fs::rename(&path, &old).unwrap();
        say(&mut sink, "two\n");
        sink.reopen().ask();
        say(&mut sink, "three\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep");
        fs::create_dir(&path).unwrap();
        let file = path.join("log");
        let mut sink = sink::file(&file).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        sink.reopen().ask();
        sink.write_all(b"on\n").unwrap();
        sink.flush().unwrap();
        assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "on\n");
        assert_eq!(sink.lost().load(Ordering::Relaxed), 0);
    }
}
