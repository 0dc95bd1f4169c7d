//! What a silent, slow or deaf client is told, and when.

use super::*;

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = running.connect().await;
    assert_eq!(read_all(&mut stream).await, b"");
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn half_a_preface_is_closed_at_the_head_deadline() {
    for cut in [3, 15, 16, 23] {
        let running = run(ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        });
        let mut stream = running.connect().await;
        send(&mut stream, &PREFACE[..cut]).await;
        read_all(&mut stream).await;
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn a_head_dripped_byte_by_byte_is_closed_on_the_first_request_and_on_the_second() {
    for requests_before in [0, 1] {
        let running = run(ListenerLimits {
            head_timeout: SHORT,
            ..limits()
        });
        let mut stream = running.connect().await;
        for _ in 0..requests_before {
            get(&mut stream, "/").await;
        }
        let (mut reader, mut writer) = stream.into_split();
        let drip = async {
            let head = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ".iter();
            for byte in head.chain(std::iter::repeat(&b'x')) {
                if writer.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        let (seen, ()) = tokio::join!(read_all(&mut reader), drip);
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("HTTP/1.1 408"), "{seen}");
        assert!(seen.contains("connection: close"), "{seen}");
        assert!(seen.contains(r#""code":"head_timeout""#), "{seen}");
        running.saw(Event::HeadTimeout).await;
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_deadline_and_not_the_idle_one() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        idle_timeout: SHORT * 3,
        ..limits()
    });
    let mut stream = running.connect().await;
    get(&mut stream, "/").await;
    let since = clock::now();
    assert_eq!(read_all(&mut stream).await, b"");
    let lived = clock::now() - since;
    assert!(lived >= SHORT * 3 - Duration::from_millis(20), "{lived:?}");
    running.saw(Event::IdleTimeout).await;
}

#[tokio::test]
async fn a_slow_handler_is_not_an_idle_connection() {
    let running = run(ListenerLimits {
        head_timeout: SHORT / 4,
        idle_timeout: SHORT / 4,
        ..limits()
    });
    let mut stream = running.connect().await;
    let open = async {
        happened(&running.handler.arrived, 1).await;
        tokio::time::sleep(SHORT).await;
        running.handler.gate.notify_one();
    };
    let (seen, ()) = tokio::join!(get(&mut stream, "/gate"), open);
    assert!(seen.ends_with("late"), "{seen}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let running = run(ListenerLimits {
            write_timeout: SHORT,
            ..limits()
        });
        let mut stream = match protocol {
            Protocol::Http1 => {
                let mut stream = running.connect().await;
                send(&mut stream, b"GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                stream
            }
            Protocol::Http2 => {
                let mut stream = running.connect().await;
                // Windows as wide as they go, so that only the socket stands in the way.
                let wide = [0, 4, 0x7f, 0xff, 0xff, 0xff];
                let more = frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes());
                let settings = frame(SETTINGS, 0, 0, &wide);
                let wire = [PREFACE, &settings, &more, &request(1, "/big")].concat();
                send(&mut stream, &wire).await;
                stream
            }
        };
        running.saw(Event::WriteStalled).await;
        // Nor does the kernel go on for us with the megabytes that it took.
        assert!(is_reset(&mut stream).await);
    }
}

/// An answer that the kernel took whole: nothing is blocked, and the connection ends for being idle.
#[tokio::test]
async fn what_the_kernel_took_is_not_kept_for_a_client_that_takes_nothing() {
    let running = run(ListenerLimits {
        write_timeout: SHORT,
        idle_timeout: SHORT,
        ..limits()
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let wire = b"GET /bytes/500000 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    send(&mut stream, wire).await;
    running.saw(Event::IdleTimeout).await;
    // Given up without a word: only who asks for the rest is told.
    let ends = (running.address.port(), stream.local_addr().unwrap().port());
    let given_up = async {
        while kernel_knows(ends) {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let given_up = timeout(PATIENCE, given_up).await;
    assert!(given_up.is_ok(), "it is still owed");
    assert!(is_reset(&mut stream).await);
}

/// Whether there is an IPv4 connection between these ports, seen from the first.
fn kernel_knows((ours, theirs): (u16, u16)) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (ours, theirs) = (format!(":{ours:04X}"), format!(":{theirs:04X}"));
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let mut ends_with = |port: &str| columns.next().is_some_and(|end| end.ends_with(port));
        ends_with(&ours) && ends_with(&theirs)
    })
}

/// Whether the rest of what is read ends in a reset.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut sink = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut sink)).await;
    let end = read.expect("the connection is still open");
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431_and_the_answer_arrives() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n",
        "x".repeat(200 << 10)
    );
    let (mut reader, mut writer) = stream.split();
    let (seen, _) = tokio::join!(read_all(&mut reader), writer.write_all(head.as_bytes()));
    assert!(seen.starts_with(b"HTTP/1.1 431"), "{seen:?}");
    running.saw(Event::BadHead).await;
}

// === HTTP/2 ===

#[tokio::test]
async fn an_h2_client_is_told_what_it_may() {
    let running = run(limits());
    let mut stream = h2(&running).await;
    let settings = until(&mut stream, SETTINGS).await;
    let told: HashMap<u16, u32> = settings
        .payload
        .chunks(6)
        .map(|pair| {
            let id = u16::from_be_bytes([pair[0], pair[1]]);
            (id, u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
        })
        .collect();
    let of = |id| told.get(&id).copied();
    assert_eq!(of(3), Some(100), "streams");
    assert_eq!(of(4).unwrap_or(65_535), 64 << 10, "window of a stream");
    assert_eq!(of(6), Some(32 << 10), "header list");
    // Beyond the 65,535 bytes that every connection begins with.
    let window = until(&mut stream, WINDOW_UPDATE).await;
    assert_eq!(window.stream, 0);
    let more = u32::from_be_bytes(window.payload[..].try_into().unwrap());
    assert_eq!(more + 65_535, 1 << 20, "window of the connection");
}

#[tokio::test]
async fn an_idle_h2_connection_is_ended_although_pings_arrive() {
    let running = run(ListenerLimits {
        idle_timeout: SHORT,
        max_control_frames: 1_000_000,
        ..limits()
    });
    let mut stream = h2(&running).await;
    assert_eq!(h2_exchange(&mut stream, 1, "/").await, b"hello");
    let (mut reader, mut writer) = stream.into_split();
    let ping = async {
        let ping = frame(PING, 0, 0, b"anyone??");
        while writer.write_all(&ping).await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    let (seen, ()) = tokio::join!(read_all(&mut reader), ping);
    let goaway = frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(
        seen.windows(goaway.len()).any(|part| part == goaway),
        "no GOAWAY"
    );
    running.saw(Event::IdleTimeout).await;
}

#[tokio::test]
async fn an_h2_connection_without_a_request_is_closed() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    farewell(&mut stream).await;
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn an_unfinished_header_block_is_closed_although_another_stream_is_open() {
    let running = run(ListenerLimits {
        head_timeout: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    send(&mut stream, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 1).await;
    let mut unfinished = request(3, "/");
    unfinished[4] = END_STREAM;
    send(&mut stream, &unfinished).await;
    farewell(&mut stream).await;
    running.saw(Event::HeadTimeout).await;
}

#[tokio::test]
async fn a_bad_preface_after_its_first_line_is_answered_in_h2() {
    let running = run(limits());
    let mut stream = running.connect().await;
    send(&mut stream, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nXXXXXXXXX").await;
    let seen = read_all(&mut stream).await;
    assert!(!seen.starts_with(b"HTTP/1"), "{seen:?}");
}
