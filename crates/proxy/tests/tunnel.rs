//! WebSockets of HTTP/2 clients (extended CONNECT) to an upstream that speaks HTTP/1.1.

mod support;

use bytes::Bytes;
use support::*;

#[test]
fn an_extended_connect_becomes_an_upgrade() {
    let backend = Backend::start(|seen| {
        assert!(
            seen.head.starts_with("GET /chat HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            .to_vec()
    });
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: up}}"],
        &cluster("up", &[backend.address], ""),
        "          http2_protocol_options: {allow_connect: true}\n",
    ));
    let address = running.address("main");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let said = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let mut ready = client.clone().ready().await.unwrap();
        // The settings of the server allow it once they have come.
        let begun = std::time::Instant::now();
        while !ready.is_extended_connect_protocol_enabled() {
            assert!(
                begun.elapsed() < DEADLINE,
                "extended CONNECT is not offered"
            );
            tokio::task::yield_now().await;
        }
        let mut request = http::Request::builder()
            .method(http::Method::CONNECT)
            .uri("http://test.local/chat")
            .body(())
            .unwrap();
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from("websocket"));
        let (response, mut out) = ready.send_request(request, false).unwrap();
        let response = tokio::time::timeout(DEADLINE, response)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(response.status(), 200);
        out.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut body = response.into_body();
        let data = tokio::time::timeout(DEADLINE, body.data()).await.unwrap();
        client = client.ready().await.unwrap();
        drop(client);
        data.unwrap().unwrap()
    });
    assert_eq!(said, b"hello"[..], "the upstream echoes");
}
