//! From an accepted connection to replies: how many there may be, how long they may take, and what becomes of one request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::credentials::Credentials;
use super::listen::Listening;
use super::parameters::Parameters;
use super::reply::{Refusal, Reply};
use super::routes::{self, ROUTES, Verb};
use super::stream::{Patient, Stream};
use super::{Shared, actions};

/// Connections at a time. Operators and scrapers are few; more are closed at once.
pub(super) const CONNECTIONS_MAX: usize = 32;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a head may take, from the connection's beginning or the last reply on; so idle connections end, too.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long nobody is accepted after a failure to do so: descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for ever, and serves each in a task of its own.
pub(super) async fn accept_all(
    listening: &Listening,
    credentials: &Credentials,
    shared: &Arc<Shared>,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(stream) = listening.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            shared.counters.refused.bump();
            continue;
        };
        let (tls, shared) = (credentials.acceptor(), Arc::clone(shared));
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(stream, tls).await {
                serve(stream, shared).await;
            }
            drop(seat);
        });
    }
}

async fn shake_hands(stream: Stream, tls: Option<TlsAcceptor>) -> Option<Stream> {
    match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => {
            let shaken = timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await;
            shaken.ok()?.ok().map(|stream| Stream::Tls(Box::new(stream)))
        }
        (stream, _) => Some(stream),
    }
}

async fn serve(stream: Stream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    // Whoever speaks no HTTP, or no more, has been told as far as possible.
    let _ = builder.serve_connection(TokioIo::new(Patient::new(stream)), service).await;
}

/// What becomes of one request.
async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Reply {
    let reply = act(request, shared).await.unwrap_or_else(Refusal::into_reply);
    shared.counters.note(reply.status().as_u16());
    reply
}

async fn act(request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    let guard = &shared.guard;
    let authority = head.uri.authority().map(Authority::as_str);
    let path = head.uri.path();
    // Of a HEAD, hyper sends what a GET would get but its body (RFC 9110 §9.3.2).
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    if let Some(page) = shared.page.as_ref().filter(|page| page.has(method, path)) {
        guard.know_reader(&head.headers, authority)?;
        let reply = page.reply(path, head.uri.query(), &head.headers);
        return reply.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no such path"));
    }
    guard.know(&head.headers, authority)?;
    let of_path = || ROUTES.iter().filter(|route| route.path == path);
    let Some(route) = of_path().find(|route| route.verb.method() == method) else {
        let allowed: Vec<&str> = of_path().map(|route| route.verb.methods()).collect();
        return Err(match HeaderValue::from_str(&allowed.join(", ")) {
            Ok(allow) if !allowed.is_empty() => {
                let text = "this path does not take that method";
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).with(ALLOW, allow)
            }
            _ => Refusal::new(StatusCode::NOT_FOUND, "no such path: see /api/v1/openapi.json"),
        });
    };
    guard.permit(route.access)?;
    let parameters = match route.verb {
        Verb::Post => {
            routes::ensure_json(&head.headers)?;
            Parameters::of_json(&read(body).await?, route)?
        }
        Verb::Get => Parameters::of_query(head.uri.query().unwrap_or_default(), route)?,
    };
    actions::carry_out(route.action, &parameters, &head.headers, shared).await
}

/// The whole body, if it is short and comes soon.
async fn read(body: Incoming) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {BODY_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|_| Refusal::bad("the body ends before its end"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long");
    timeout(BODY_TIME_MAX, whole).await.map_err(late)?
}
