//! HTTP/2 abuse (behaviour.md 2.3): each flood is bounded, and whoever shares the gateway with it notices nothing.

use super::*;

/// Requests of the witness.
const WITNESSED: usize = 50;

const PROTOCOL_ERROR: u8 = 1;
const STREAM_CLOSED: u8 = 5;
const REFUSED_STREAM: u8 = 7;
const CANCEL: u8 = 8;
const ENHANCE_YOUR_CALM: u8 = 11;

/// Sends `flood` with its number until the other side has had enough; the code of its GOAWAY, and all that it sent. A
/// witness on a connection of its own is answered all the while.
async fn flooded(
    running: &Running,
    rounds: u32,
    flood: impl Fn(u32) -> Vec<u8>,
) -> (Option<u8>, Vec<Seen>) {
    let (mut reader, mut writer) = h2(running).await.into_split();
    let attack = async {
        for round in 0..rounds {
            if writer.write_all(&flood(round)).await.is_err() {
                break;
            }
        }
        // A flood that is borne ends here.
        let _ = writer.shutdown().await;
    };
    let witness = async {
        let mut stream = running.connect().await;
        for _ in 0..WITNESSED {
            let seen = get(&mut stream, "/").await;
            assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        }
    };
    let (seen, (), ()) = tokio::join!(read_all(&mut reader), attack, witness);
    let mut wire = &seen[..];
    let mut frames = Vec::new();
    while let Some(seen) = next(&mut wire).await {
        frames.push(seen);
    }
    let goaway = frames.iter().rfind(|seen| seen.kind == GOAWAY);
    (goaway.map(|seen| seen.payload[7]), frames)
}

/// How often the handler was asked for `line`.
fn begun(running: &Running, line: &str) -> usize {
    let seen = running.handler.seen.lock();
    seen.iter().filter(|seen| *seen == line).count()
}

fn resets(frames: &[Seen], code: u8) -> usize {
    let is_reset = |seen: &&Seen| seen.kind == RST_STREAM && seen.payload[3] == code;
    frames.iter().filter(is_reset).count()
}

/// SETTINGS that give each stream a window of `bytes`.
fn window(bytes: u32) -> Vec<u8> {
    let [a, b, c, d] = bytes.to_be_bytes();
    frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d])
}

fn reset(id: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, id, &[0, 0, 0, CANCEL])
}

#[tokio::test]
async fn control_frames_beyond_the_cap_end_in_enhance_your_calm() {
    let ping = |_| frame(PING, 0, 0, b"anyone??");
    let settings = |_| frame(SETTINGS, 0, 0, &[]);
    let floods: [&dyn Fn(u32) -> Vec<u8>; 2] = [&ping, &settings];
    for flood in floods {
        let running = run(limits());
        let (code, frames) = flooded(&running, 50_000, flood).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM));
        assert!(frames.len() < 5_000, "{} answers", frames.len());
        running.saw(Event::Flooded).await;
    }
}

#[tokio::test]
async fn a_rapid_reset_ends_before_much_work_was_begun() {
    for batch in [1, 50] {
        let running = run(limits());
        let (code, _) = flooded(&running, 20_000 / batch, |round| {
            let ids = (round * batch..(round + 1) * batch).map(|number| 2 * number + 1);
            ids.flat_map(|id| [request(id, "/gate"), reset(id)].concat())
                .collect()
        })
        .await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM));
        let begun = begun(&running, "GET /gate");
        assert!(begun <= 100, "{begun} requests reached the handler");
        happened(&running.handler.dropped, u32::try_from(begun).unwrap()).await;
    }
}

#[tokio::test]
async fn resets_beyond_the_cap_are_a_flood_even_when_they_come_one_by_one() {
    let running = run(ListenerLimits {
        max_resets: 20,
        ..limits()
    });
    let mut stream = h2(&running).await;
    // A quarter of the cap: each stream is reset right after it was opened.
    for round in 0..=5 {
        let id = 2 * round + 1;
        send(&mut stream, &request(id, "/gate")).await;
        happened(&running.handler.arrived, 1).await;
        send(&mut stream, &reset(id)).await;
        happened(&running.handler.dropped, 1).await;
    }
    assert_eq!(farewell(&mut stream).await, Some(ENHANCE_YOUR_CALM));
    running.saw(Event::Flooded).await;
}

#[tokio::test]
async fn resets_that_we_are_made_to_send_are_bounded() {
    let nothing = |id| frame(WINDOW_UPDATE, 0, id, &[0; 4]);
    let after_the_end = |id| frame(DATA, 0, id, b"x");
    let overflow = |id| frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]);
    let provocations: [&dyn Fn(u32) -> Vec<u8>; 3] = [&nothing, &after_the_end, &overflow];
    for provoke in provocations {
        let running = run(limits());
        let (code, frames) = flooded(&running, 5_000, |round| {
            let id = 2 * round + 1;
            [request(id, "/gate"), provoke(id)].concat()
        })
        .await;
        assert!(
            matches!(
                code,
                Some(PROTOCOL_ERROR | STREAM_CLOSED | ENHANCE_YOUR_CALM)
            ),
            "{code:?}"
        );
        let sent = frames.iter().filter(|seen| seen.kind == RST_STREAM).count();
        // Beside those that we are made to send: streams over the limit are refused.
        assert!(sent - resets(&frames, REFUSED_STREAM) <= 101, "{sent}");
    }
}

#[tokio::test]
async fn endless_header_blocks_and_empty_frames_end_in_enhance_your_calm() {
    let endless = |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &[0x82]),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    let empty = |round| match round {
        0 => {
            let mut post = request(1, "/body");
            post[4] = END_HEADERS;
            post
        }
        _ => frame(DATA, 0, 1, &[]),
    };
    let floods: [&dyn Fn(u32) -> Vec<u8>; 2] = [&endless, &empty];
    for flood in floods {
        let running = run(limits());
        let (code, _) = flooded(&running, 50_000, flood).await;
        assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    }
}

/// Frames that cost an answer to nobody, in numbers: each kind is ended, or read past, and the witness is served.
#[tokio::test]
async fn frames_that_say_nothing_are_ended_or_read_past() {
    let running = run(limits());
    let post = |round: u32| {
        let mut head = request(1, "/body");
        head[4] = END_HEADERS;
        (round == 0).then_some(head)
    };
    // Nothing but padding is nothing, however long it is.
    let (code, _) = flooded(&running, 50_000, |round| {
        let padding = [&[255_u8][..], &[0; 255]].concat();
        post(round).unwrap_or_else(|| frame(DATA, 8, 1, &padding))
    })
    .await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    // An acknowledgement of what was never said.
    let (code, _) = flooded(&running, 20_000, |_| frame(SETTINGS, ACK, 0, &[])).await;
    assert!(
        matches!(code, Some(PROTOCOL_ERROR | ENHANCE_YOUR_CALM)),
        "{code:?}"
    );
    // Kinds that nobody knows are read past (RFC 9113 section 5.5), as are answers to a PING.
    for (kind, flags) in [(0xfa, 0), (PING, ACK)] {
        let (code, frames) =
            flooded(&running, 20_000, |_| frame(kind, flags, 0, b"anything")).await;
        let told = frames.iter().filter(|seen| seen.kind != SETTINGS).count();
        assert!(told < 10, "{told} frames in answer to {kind}, {code:?}");
    }
    // A window that grows by a byte at a time, to no end.
    let (code, frames) = flooded(&running, 20_000, |_| {
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
    })
    .await;
    assert!(frames.len() < 10, "{code:?}");
}

#[tokio::test]
async fn priorities_are_ignored_or_refused() {
    let running = run(limits());
    let (code, frames) = flooded(&running, 50_000, |round| {
        frame(PRIORITY, 0, 2 * round + 1, &[0, 0, 0, 0, 7])
    })
    .await;
    assert!(
        matches!(code, None | Some(0 | ENHANCE_YOUR_CALM)),
        "{code:?}"
    );
    assert!(frames.len() < 100);
}

#[tokio::test]
async fn header_lists_that_grow_by_reference_are_not_decoded_whole() {
    // One entry of the dynamic table, then a byte for each time it is meant. 62 is its index.
    let bomb = |entry: &[u8], times: usize| {
        let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'a'];
        block.extend(entry);
        block.extend(std::iter::repeat_n(0x80 | 62, times));
        block
    };
    let mut cookie = vec![0x40, 6];
    cookie.extend(b"cookie");
    // 4,000 as an integer of 7 bits and more.
    cookie.extend([127, 0xa1, 0x1e]);
    cookie.extend([b'c'; 4_000]);
    for block in [bomb(&cookie, 8_000), bomb(&[0x40, 1, b'a', 0], 3_000)] {
        let running = run(limits());
        let (code, frames) = flooded(&running, 50, |round| {
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * round + 1, &block)
        })
        .await;
        let refused = frames.iter().filter(|seen| seen.kind == HEADERS).count();
        assert!(code == Some(ENHANCE_YOUR_CALM) || refused == 50, "{code:?}");
        assert_eq!(begun(&running, "GET /"), WITNESSED);
    }
}

#[tokio::test]
async fn a_flood_that_is_never_read_is_ended_by_the_write_deadline() {
    for flood in [frame(PING, 0, 0, b"anyone??"), frame(SETTINGS, 0, 0, &[])] {
        let running = run(ListenerLimits {
            write_timeout: SHORT,
            max_control_frames: u32::MAX,
            ..limits()
        });
        let (_reader, mut writer) = h2(&running).await.into_split();
        let batch = flood.repeat(1_000);
        let attack = async { while writer.write_all(&batch).await.is_ok() {} };
        timeout(PATIENCE, attack).await.expect("it is still read");
        running.saw(Event::WriteStalled).await;
    }
}

#[tokio::test]
async fn streams_without_a_window_are_reset_while_others_live_on() {
    let running = run(ListenerLimits {
        write_timeout: SHORT,
        ..limits()
    });
    let mut stream = running.connect().await;
    let mut wire = [PREFACE.to_vec(), window(0), request(1, "/gate")].concat();
    (0..199).for_each(|number| wire.extend(request(2 * number + 3, "/")));
    send(&mut stream, &wire).await;
    let (mut stalled, mut refused) = (0, 0);
    while stalled < 99 || refused < 100 {
        let seen = until(&mut stream, RST_STREAM).await;
        match seen.payload[3] {
            CANCEL => stalled += 1,
            REFUSED_STREAM => refused += 1,
            other => panic!("reset with {other}"),
        }
    }
    assert_eq!((stalled, refused), (99, 100));
    running.saw(Event::StreamStalled).await;

    // The first one has waited longer than they were allowed to, but for us.
    running.handler.gate.notify_one();
    send(&mut stream, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])).await;
    assert_eq!(body(&mut stream).await, b"late");
    let more = [
        request(401, "/"),
        frame(WINDOW_UPDATE, 0, 401, &[0, 0, 0, 9]),
    ]
    .concat();
    send(&mut stream, &more).await;
    assert_eq!(body(&mut stream).await, b"hello");
}

#[tokio::test]
async fn an_answer_that_is_taken_all_but_its_last_bytes_is_reset_too() {
    for (window_size, path) in [
        (1, "/"),
        (4, "/"),
        (65_535, "/bytes/65536"),
        (65_535, "/bytes/65540"),
        (16_384, "/bytes/16385"),
        (20_000, "/bytes/30000"),
    ] {
        let running = run(ListenerLimits {
            write_timeout: SHORT,
            ..limits()
        });
        let mut stream = running.connect().await;
        let wire = [
            PREFACE.to_vec(),
            window(window_size),
            frame(WINDOW_UPDATE, 0, 0, &[0, 15, 0, 0]),
            request(1, path),
            request(3, "/gate"),
        ];
        send(&mut stream, &wire.concat()).await;
        let mut taken = 0;
        loop {
            let seen = next(&mut stream).await.expect("the connection was closed");
            match seen.kind {
                DATA => {
                    assert_eq!(seen.flags & END_STREAM, 0, "{path} within {window_size}");
                    taken += u32::try_from(seen.payload.len()).unwrap();
                }
                RST_STREAM => {
                    assert_eq!((seen.stream, seen.payload[3]), (1, CANCEL));
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(taken, window_size, "{path}");
    }
}

#[tokio::test]
async fn streams_that_share_a_narrow_connection_are_reset_as_well() {
    let running = run(ListenerLimits {
        write_timeout: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    let wire: Vec<u8> = (0..10)
        .flat_map(|number| request(2 * number + 1, "/bytes/10000"))
        .collect();
    send(&mut stream, &wire).await;
    let (mut whole, mut reset) = (0, 0);
    while whole + reset < 10 {
        let seen = next(&mut stream).await.expect("the connection was closed");
        match seen.kind {
            DATA if seen.flags & END_STREAM != 0 => whole += 1,
            RST_STREAM => reset += 1,
            _ => {}
        }
    }
    assert_eq!((whole, reset), (6, 4), "65,535 bytes were asked for");
}

#[tokio::test]
async fn an_answer_that_fits_is_one_frame() {
    let running = run(limits());
    let mut stream = h2(&running).await;
    for (id, count) in [(1, 1), (3, 5_000), (5, 16_384)] {
        send(&mut stream, &request(id, &format!("/bytes/{count}"))).await;
        let seen = until(&mut stream, DATA).await;
        assert_eq!((seen.payload.len(), seen.flags), (count, END_STREAM));
    }
}

#[tokio::test]
async fn a_slow_client_that_takes_something_is_waited_for() {
    let running = run(ListenerLimits {
        write_timeout: SHORT * 2,
        ..limits()
    });
    let mut stream = running.connect().await;
    let wire = [
        PREFACE.to_vec(),
        window(16_384),
        request(1, "/bytes/100000"),
    ];
    send(&mut stream, &wire.concat()).await;
    let mut taken = 0;
    while taken < 100_000 {
        let seen = until(&mut stream, DATA).await;
        taken += seen.payload.len();
        if taken % 16_384 == 0 {
            tokio::time::sleep(SHORT).await;
            let more = [
                frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0x40, 0]),
                frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0x40, 0]),
            ];
            send(&mut stream, &more.concat()).await;
        }
    }
    assert_eq!(taken, 100_000);
}
