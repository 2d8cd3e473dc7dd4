//! A client's socket below the HTTP library, for what the library does not do: it closes
//! connections whose client does not read, lets a client that has closed its sending half receive
//! its response, and replaces the response to a head that is not HTTP.
//!
//! # A client that sends no more
//!
//! Such a client may have sent everything and wait for the response, or it may be gone. The
//! operating system reports both in the same way until something is written: a client that is gone
//! then replies with a reset. So the end is hidden from the HTTP library while a response is
//! pending, and the client is probed: before the response begins by an interim response, `100
//! Continue`, which every HTTP/1.1 client ignores, and within an event stream by a comment. An
//! HTTP/1.0 client cannot be probed; it gets what is sent within five seconds.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep};

use super::exchange::{Exchange, Probe};
use super::malformed;

/// How often a client that sends no more is checked.
const LOOK: Duration = Duration::from_millis(50);
/// Time until the first probe. An immediate response needs no probe.
const FIRST_PROBE: Duration = Duration::from_millis(250);
/// Pause between the first and the second probe. Each later pause is four times as long, because
/// some clients accept only a few interim responses.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// How long a client that cannot be probed is assumed to listen.
const BELIEVED: Duration = Duration::from_secs(5);

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// After a response to input that was not HTTP: how much more input is read, and for how long, so
/// that a reset does not destroy the response.
const MAX_LINGER_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// The socket of one connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    exchange: Arc<Exchange>,
    send_timeout: Duration,
    /// Runs while pending output cannot be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the HTTP library has written all of its output.
    is_flushed: bool,
    ended: Option<Ended>,
    /// The response to input that is not HTTP.
    reply: Option<Reply>,
}

/// State of a client that sends no more.
#[derive(Debug)]
struct Ended {
    since: Instant,
    look: Interval,
    next_probe: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    num_written: usize,
    is_shut: bool,
    num_read: usize,
    end: Pin<Box<Sleep>>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, exchange: Arc<Exchange>, send_timeout: Duration) -> Self {
        Self {
            stream,
            exchange,
            send_timeout,
            stalled: None,
            is_flushed: true,
            ended: None,
            reply: None,
        }
    }

    /// Returns the end of the input to the HTTP library when it may know of it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.exchange.tells_of_end(cx.waker()) {
                return Poll::Ready(Ok(()));
            }
            // The reset that a client that is gone sends in reply.
            if let Some(error) = self.stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            let ended = self.ended.as_mut().expect("its end was read");
            if Instant::now() >= ended.next_probe {
                match self.exchange.probe() {
                    Probe::Interim if !self.is_flushed => {}
                    Probe::Interim => match self.stream.try_write(INTERIM) {
                        Ok(len) if len == INTERIM.len() => ended.asked(),
                        Ok(_) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    Probe::Underway => ended.asked(),
                    Probe::Impossible if ended.since.elapsed() >= BELIEVED => {
                        return Poll::Ready(Ok(()));
                    }
                    Probe::Impossible => {}
                }
            }
            ready!(ended.look.poll_tick(cx));
        }
    }

    /// Fails with a timeout if the client reads nothing for too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(self.send_timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            ErrorKind::TimedOut,
            "the client does not read",
        )))
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reply = self.reply.as_mut().expect("there is one to write");
        while let rest = &reply.bytes[reply.num_written..]
            && !rest.is_empty()
        {
            reply.num_written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Closes our sending half, then reads and discards for a moment what the client still sends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reply = self.reply.as_mut().expect("there was one to write");
        if !reply.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            reply.is_shut = true;
            reply.end.as_mut().reset(Instant::now() + LINGER);
        }
        let mut forgotten = [0; 16 << 10];
        while reply.num_read < MAX_LINGER_BYTES && reply.end.as_mut().poll(cx).is_pending() {
            let mut bytes = ReadBuf::new(&mut forgotten);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes));
            match bytes.filled().len() {
                0 => break,
                _ if read.is_err() => break,
                len => reply.num_read += len,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Ended {
    fn now() -> Self {
        let now = Instant::now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            since: now,
            look,
            next_probe: now + FIRST_PROBE,
            pause: FIRST_PAUSE,
        }
    }

    fn asked(&mut self) {
        self.next_probe = Instant::now() + self.pause;
        self.pause *= 4;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended.is_none() {
            let num_before = bytes.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, bytes))?;
            if bytes.filled().len() > num_before || bytes.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.ended = Some(Ended::now());
        }
        this.poll_end(cx)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.is_flushed = false;
        if this.reply.is_none()
            && this.exchange.is_idle()
            && let Some(reply) = malformed::reply_for(bytes)
        {
            this.reply = Some(Reply {
                bytes: reply,
                num_written: 0,
                is_shut: false,
                num_read: 0,
                end: Box::pin(sleep(LINGER)),
            });
        }
        if this.reply.is_some() {
            let written = this.poll_reply(cx).map_ok(|()| bytes.len());
            return this.watched(cx, written);
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = parts.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (full.next(), full.next()) {
            return self.poll_write(cx, only);
        }
        self.is_flushed = false;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_flushed = true;
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.reply {
            Some(_) => this.poll_linger(cx),
            None => Pin::new(&mut this.stream).poll_shutdown(cx),
        }
    }
}
