//! How exchanges end: a panic, a client that leaves, a switch, a drain.

use super::*;

#[tokio::test]
async fn a_panic_ends_one_request_and_not_its_connection() {
    let running = run(limits());
    let mut stream = running.connect().await;
    assert!(get(&mut stream, "/panic").await.starts_with("HTTP/1.1 500"));
    assert!(get(&mut stream, "/").await.starts_with("HTTP/1.1 200"));

    let mut stream = h2(&running).await;
    assert_eq!(h2_exchange(&mut stream, 1, "/panic").await, b"sorry");
    assert_eq!(h2_exchange(&mut stream, 3, "/").await, b"hello");
    assert_eq!(
        running.handler.events.lock().get(&Event::Panicked),
        Some(&2)
    );
}

// === the client leaves, or stays for something else ===

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_with_it() {
    let running = run(limits());
    let mut one = running.connect().await;
    send(&mut one, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut two = h2(&running).await;
    send(&mut two, &request(1, "/gate")).await;
    let mut three = h2(&running).await;
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    send(&mut three, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 3).await;
    drop((one, two));
    send(&mut three, &reset).await;
    happened(&running.handler.dropped, 3).await;
    drop(three);
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
}

#[tokio::test]
async fn an_upgraded_connection_is_still_counted_and_has_no_deadline_of_ours() {
    let running = run(ListenerLimits {
        idle_timeout: SHORT / 4,
        head_timeout: SHORT / 4,
        ..limits()
    });
    let mut stream = running.connect().await;
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    send(&mut stream, ask).await;
    let seen = answer(&mut stream).await;
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    tokio::time::sleep(SHORT).await;
    send(&mut stream, b"still here").await;
    let mut echo = [0; 10];
    let read = timeout(PATIENCE, stream.read_exact(&mut echo)).await;
    read.unwrap().unwrap();
    assert_eq!((&echo, running.listener.connections()), (b"still here", 1));
    drop(stream);
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
    assert_eq!(running.listener.connections(), 0);
}

// === drain ===

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_announces_the_end() {
    let running = run(limits());
    let mut stream = running.connect().await;
    let mut other = h2(&running).await;
    let mut idle = running.connect().await;
    get(&mut idle, "/").await;
    send(&mut stream, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    send(&mut other, &request(1, "/gate")).await;
    happened(&running.handler.arrived, 3).await;
    running.drain.start();
    assert_eq!(read_all(&mut idle).await, b"");
    drop(idle);
    until(&mut other, GOAWAY).await;
    let ping = until(&mut other, PING).await;
    send(&mut other, &frame(PING, ACK, 0, &ping.payload)).await;
    running.handler.gate.notify_waiters();
    assert_eq!(until(&mut other, DATA).await.payload, b"late");
    let seen = answer(&mut stream).await;
    assert!(
        seen.contains("connection: close") && seen.ends_with("late"),
        "{seen}"
    );
    drop((stream, other));
    assert_eq!(running.drain.wait_idle(PATIENCE).await, 0);
    assert_eq!(running.listener.connections(), 0);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut_off() {
    let running = run(limits());
    let mut stream = running.connect().await;
    send(&mut stream, b"GET /gate HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    happened(&running.handler.arrived, 1).await;
    let mut silent = running.connect().await;
    running.drain.start();
    assert!(running.drain.wait_idle(SHORT).await >= 1);
    assert_eq!(read_all(&mut stream).await, b"");
    read_all(&mut silent).await;
}
