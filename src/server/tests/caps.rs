//! Connections, requests and age are bounded.

use super::*;

#[tokio::test]
async fn an_address_at_its_cap_is_closed_at_once_and_a_trusted_proxy_is_not_counted() {
    let one = ListenerLimits {
        max_connections_per_ip: 1,
        ..limits()
    };
    let running = run(one.clone());
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    assert_eq!(read_all(&mut second).await, b"");
    running.saw(Event::PerIpCap).await;
    assert!(get(&mut first, "/").await.starts_with("HTTP/1.1 200"));

    let running = run_with(one, None, true);
    let mut streams = [running.connect().await, running.connect().await];
    for stream in &mut streams {
        get(stream, "/").await;
    }
    assert_eq!(running.listener.connections(), 2);
}

#[tokio::test]
async fn at_the_cap_a_connection_waits_until_another_ends() {
    let running = run(ListenerLimits {
        max_connections: 1,
        ..limits()
    });
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    // Another round trip gives the accept loop every chance to take the second one.
    get(&mut first, "/").await;
    assert_eq!(
        running.handler.events.lock().get(&Event::Accepted),
        Some(&1)
    );
    drop(first);
    let seen = get(&mut second, "/").await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
}

#[tokio::test]
async fn the_last_descriptors_are_left_to_those_who_are_here() {
    let running = run_among(limits(), None, false, 1);
    let mut first = running.connect().await;
    get(&mut first, "/").await;
    let mut second = running.connect().await;
    running.saw(Event::NoDescriptors).await;
    assert!(get(&mut first, "/").await.starts_with("HTTP/1.1 200"));
    drop(first);
    assert!(get(&mut second, "/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_last_request_of_a_connection_says_so() {
    let running = run(ListenerLimits {
        max_requests_per_connection: 2,
        ..limits()
    });
    let mut stream = running.connect().await;
    let first = get(&mut stream, "/").await;
    assert!(!first.contains("connection: close"), "{first}");
    let second = get(&mut stream, "/").await;
    assert!(second.contains("connection: close"), "{second}");
    assert_eq!(read_all(&mut stream).await, b"");

    let mut stream = h2(&running).await;
    h2_exchange(&mut stream, 1, "/").await;
    send(&mut stream, &request(3, "/")).await;
    until(&mut stream, GOAWAY).await;
    assert_eq!(until(&mut stream, DATA).await.payload, b"hello");
}

#[tokio::test]
async fn an_old_connection_is_ended_after_what_it_has_in_flight() {
    let running = run(ListenerLimits {
        max_connection_age: SHORT,
        ..limits()
    });
    let mut stream = h2(&running).await;
    send(&mut stream, &request(1, "/gate")).await;
    until(&mut stream, GOAWAY).await;
    running.handler.gate.notify_one();
    assert_eq!(until(&mut stream, DATA).await.payload, b"late");
}
