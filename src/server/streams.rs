//! The streams of an HTTP/2 connection: each answer is a task, which is ended when the client takes nothing of it.
//!
//! h2 keeps a stream whose window is closed for as long as the connection lives. hyper gives no hook for a deadline, but
//! it runs each stream with our executor, and every piece of an answer passes [`Counted`](super::exchange::Counted): a
//! stream that was given a piece, is not done and asks for nothing more is waiting for the client. Dropping its task
//! resets the stream and leaves the others alone.
//!
//! A tunnel (RFC 8441) has a task here as well, for what it sends; what it does not send in time is its own affair.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::activity::{Activity, OpenExchange, Step};
use super::{Event, Handler};
use crate::types::{clock, task};

/// Runs the streams of one connection.
pub(super) struct Streams<H> {
    pub(super) handler: Arc<H>,
    pub(super) listener: usize,
    pub(super) activity: Arc<Activity>,
    pub(super) patience: Duration,
}

impl<H> Clone for Streams<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            listener: self.listener,
            activity: Arc::clone(&self.activity),
            patience: self.patience,
        }
    }
}

impl<H, F> hyper::rt::Executor<F> for Streams<H>
where
    H: Handler,
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let watched = Watched {
            stream,
            home: self.clone(),
            _open: self.activity.hold(),
            owed: false,
            timer: None,
        };
        drop(task::spawn("h2 stream", watched));
    }
}

pin_project_lite::pin_project! {
    /// One stream, with the deadline of its client.
    struct Watched<H, F> {
        #[pin]
        stream: F,
        home: Streams<H>,
        // The exchange is over with its answer; the stream may go on as a tunnel.
        _open: OpenExchange,
        // Whether the last piece still waits for the client's window.
        owed: bool,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<H: Handler, F: Future<Output = ()>> Future for Watched<H, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        let activity = &me.home.activity;
        activity.set_step(Step::None);
        if me.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match activity.step() {
            // The stream was woken for something else.
            Step::None => {}
            Step::Waited => *me.owed = false,
            Step::Sent => {
                *me.owed = true;
                let deadline = (clock::now() + me.home.patience).into();
                match me.timer {
                    Some(timer) => timer.as_mut().reset(deadline),
                    None => *me.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
                }
            }
        }
        if *me.owed
            && let Some(timer) = me.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            me.home.handler.note(me.home.listener, Event::StreamStalled);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
