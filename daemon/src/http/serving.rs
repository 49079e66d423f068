//! Connections of one listener: so many at once, and none that only holds a place.
//!
//! Anybody on this machine can connect, with a token or without; only the head of a request tells. So heads must come
//! soon, and a connection that asks nothing is closed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::supervisor::Tasks;

/// Connections at once; further ones wait until one ends.
const CONNECTIONS: usize = 256;
/// The head of a request must be there in this time; a connection that is kept asks again in it or is closed.
const HEAD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });
/// Most bytes of a head, and of what is read ahead of a body.
const BUFFER: usize = 128 << 10;
/// The system has no more sockets for us: it is asked again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers until the node stops; connections that are answered then are answered to the end.
///
/// What is upgraded to a WebSocket gives its place here up: whoever takes it counts it.
pub(crate) async fn serve(listener: TcpListener, app: Router, tasks: Tasks, of: &'static str) {
    let stop = tasks.stopping();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = stop.run_until_cancelled(accepted).await else { return };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, of, "a connection cannot be accepted");
                stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
                continue;
            }
        };
        // Without it a streamed answer's tail waits 40 ms for the reader's delayed acknowledgement.
        drop(stream.set_nodelay(true));
        let answering = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()));
        let answering = answering.with_upgrades();
        let stop = stop.clone();
        tasks.spawn("connection", async move {
            let answering = async move {
                let mut answering = std::pin::pin!(answering);
                tokio::select! {
                    done = answering.as_mut() => done,
                    () = stop.cancelled() => {
                        answering.as_mut().graceful_shutdown();
                        answering.await
                    }
                }
            };
            // A panic in a handler, which a request may have provoked, ends its connection only.
            match AssertUnwindSafe(answering).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, of, "a connection ended early"),
                Err(_) => tracing::error!(of, "answering a request panicked; please report this"),
            }
            drop(place);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::supervisor::Supervisor;

    const SOON: Duration = Duration::from_secs(30);

    async fn serving() -> (std::net::SocketAddr, Supervisor) {
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = supervisor.tasks();
        let app = Router::new().route("/", get(|| async { "here" })).route(
            "/panics",
            get(|| async {
                if true {
                    panic!("provoked")
                }
            }),
        );
        supervisor.tasks().spawn("api", async move {
            serve(listener, app, tasks, "a test").await;
            Ok(())
        });
        (address, supervisor)
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn who_only_holds_places_loses_them_and_others_are_answered() {
        let (address, supervisor) = serving().await;
        let mut idle = Vec::new();
        for n in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
            }
            idle.push(stream);
        }
        assert!(ask(address, "/").await.ends_with("here"));
        for mut stream in idle {
            let mut rest = Vec::new();
            // Closed, whatever it says of it.
            let _closed = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("it is closed soon");
        }
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_one_connection() {
        let (address, supervisor) = serving().await;
        assert_eq!(ask(address, "/panics").await, "");
        assert!(ask(address, "/").await.ends_with("here"));
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (address, supervisor) = serving().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(4 * BUFFER));
        // The far end may close before all is sent.
        let _sent = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _closed = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is closed soon");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }
}
