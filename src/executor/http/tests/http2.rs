//! Servers that choose HTTP/2.

use super::*;

/// What a server for HTTP/2 does with one request.
#[derive(Clone, Copy)]
enum Step2 {
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Sends the headers and nothing more.
    Stall,
    Reset(h2::Reason),
    Hang,
    /// Chooses HTTP/2 and sends these bytes.
    Bytes(&'static [u8]),
}

/// A server that takes one connection per step, over TLS, and knows nothing but HTTP/2.
fn serve_http2(steps: &'static [Step2]) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("a socket");
    let (heads, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut config = tls_config();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            for step in steps {
                let (stream, _) = listener.accept().await.expect("a connection");
                // A client that does not speak it has no head.
                let Ok(stream) = acceptor.accept(stream).await else {
                    heads.send(String::new()).ok();
                    continue;
                };
                // The client may go whenever it likes.
                converse_http2(stream, *step, &heads).await.ok();
            }
        });
    });
    (port, received)
}

async fn converse_http2(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    step: Step2,
    heads: &mpsc::Sender<String>,
) -> Result<(), h2::Error> {
    if let Step2::Bytes(bytes) = step {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(bytes).await.ok();
        // Until the client has gone.
        while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
        return Ok(());
    }
    let mut connection = h2::server::handshake(stream).await?;
    let Some(request) = connection.accept().await else {
        return Ok(());
    };
    let (request, mut response) = request?;
    heads.send(head_of(&request)).ok();
    let (mut open, mut body) = (None, None);
    match step {
        Step2::Answer(status, headers, text) => {
            let mut head = Response::builder().status(status);
            for (name, value) in headers {
                head = head.header(*name, *value);
            }
            let head = head.body(()).expect("a head");
            let mut sender = response.send_response(head, text.is_empty())?;
            if !text.is_empty() {
                sender.send_data(Bytes::from_static(text.as_bytes()), true)?;
            }
        }
        Step2::Stall => body = Some(response.send_response(Response::new(()), false)?),
        Step2::Reset(reason) => response.send_reset(reason),
        Step2::Hang => open = Some(response),
        Step2::Bytes(_) => {}
    }
    // Until the client has gone.
    while let Some(next) = connection.accept().await {
        next?;
    }
    drop((open, body));
    Ok(())
}

/// The request's parts, sorted.
fn head_of(request: &hyper::Request<h2::RecvStream>) -> String {
    let mut lines: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    lines.sort_unstable();
    format!("{} {}|{}", request.method(), request.uri(), lines.join("|"))
}

#[test]
fn a_server_may_choose_http2() {
    use Step2::{Answer, Hang, Reset, Stall};
    let check = |step: &'static [Step2], timeout, expected: Result<(u16, &str), &str>| {
        let (port, _heads) = serve_http2(step);
        let request = request(Transport::Tls, port, "/x", &[]);
        let answer = run(&Network::new(None), &request, timeout);
        let answer = answer
            .map(|answer| (answer.status, String::from_utf8(answer.body).expect("text")))
            .map_err(|error| error.to_string().replace(&port.to_string(), "PORT"));
        let answer = answer
            .as_ref()
            .map(|(status, body)| (*status, body.as_str()));
        assert_eq!(answer.map_err(String::as_str), expected);
    };
    check(&[Answer(200, &[], "ok")], PATIENCE, Ok((200, "ok")));
    check(&[Answer(503, &[], "")], PATIENCE, Ok((503, "")));
    let away = &[Answer(
        302,
        &[("location", "https://elsewhere.example/")],
        "away",
    )];
    check(away, PATIENCE, Ok((302, "away")));
    let url = "Get \"https://127.0.0.1:PORT/x\": ";
    let fails =
        |step, timeout, expected: &str| check(step, timeout, Err(&format!("{url}{expected}")));
    fails(
        &[Hang],
        SHORT,
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    );
    fails(
        &[Reset(h2::Reason::INTERNAL_ERROR)],
        PATIENCE,
        "stream error: stream ID 1; INTERNAL_ERROR; received from peer",
    );
    fails(
        // SETTINGS, and GOAWAY before the first stream.
        &[Step2::Bytes(
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
        )],
        PATIENCE,
        "http2: server sent GOAWAY and closed the connection; ErrCode=ENHANCE_YOUR_CALM",
    );
    fails(
        &[Step2::Bytes(b"HTTP/1.1 200 OK\r\n\r\n")],
        PATIENCE,
        "connection error: FRAME_SIZE_ERROR",
    );
    let late =
        "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    check(&[Stall], SHORT, Err(late));
}

#[test]
fn a_long_body_over_http2_is_read_up_to_its_limit() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(200_000));
    let steps = Box::leak(Box::new([Step2::Answer(200, &[], LONG.as_str())]));
    let (port, _heads) = serve_http2(steps);
    let request = request(Transport::Tls, port, "/", &[]);
    let answer = run(&Network::new(None), &request, PATIENCE).expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 10 * 1024));
}

#[test]
fn requests_over_http2_say_what_others_say() {
    let (port, heads) = serve_http2(&[
        Step2::Answer(307, &[("location", "/second?q")], ""),
        Step2::Answer(200, &[], ""),
    ]);
    let headers = [
        ("Host", "example.com"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("Upgrade", "x"),
    ];
    let request = request(Transport::Tls, port, "/first", &headers);
    run(&Network::new(None), &request, PATIENCE).expect("an answer");
    let heads: Vec<String> = heads.iter().collect();
    let rest = "user-agent: kube-probe/1.37|x-twice: 1|x-twice: 2";
    assert_eq!(
        heads,
        [
            format!("GET https://example.com/first|accept: */*|{rest}"),
            format!(
                "GET https://example.com/second?q|accept: */*|referer: https://127.0.0.1:{port}/first|{rest}"
            ),
        ]
    );
}

#[test]
fn hooks_offer_no_http2() {
    let (port, _heads) = serve_http2(&[Step2::Answer(200, &[], "")]);
    let request = request(Transport::Tls, port, "/", &[]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let network = Network::new(None);
    let asked = get(&network, &request, Agent::Lifecycle, Some(PATIENCE));
    let error = runtime
        .block_on(asked)
        .expect_err("two protocols")
        .to_string();
    assert!(error.contains("malformed HTTP response"), "{error}");
}
