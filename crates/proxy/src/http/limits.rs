//! How long a stream may live, and how long it may be silent.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::body::{Body, BodyError, Frame, SharedReplay, Source};
use crate::stats::groups::HttpStats;
use crate::upstream::Cluster;

/// The limits of one stream. They are known bit by bit: the route's come when it is found.
#[derive(Debug, Default)]
pub struct Limits {
    /// The longest silence.
    pub idle: Cell<Option<Duration>>,
    /// When the stream has to end.
    pub end: Cell<Option<Instant>>,
    /// When the request has to be complete.
    pub request: Cell<Option<Instant>>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Nothing moved for too long.
    Idle,
    /// The stream lasted too long.
    End,
    /// The request took too long to come.
    Request,
}

impl Limits {
    /// The next limit: when, and which.
    fn next(&self, moved: Instant, complete: bool) -> Option<(Instant, Reached)> {
        let idle = self.idle.get().map(|idle| (moved + idle, Reached::Idle));
        let end = self.end.get().map(|end| (end, Reached::End));
        let request = self.request.get().filter(|_| !complete);
        let request = request.map(|end| (end, Reached::Request));
        [idle, end, request]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

/// Waits for `work` within the limits. `body` is the request's: what comes of it counts as movement.
pub async fn within<T>(
    limits: &Limits,
    start: Instant,
    body: Option<SharedReplay>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Reached> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        loop {
            let (moved, complete) = match &body {
                // The body is being read at this moment; it moves.
                Some(body) => body.try_borrow().map_or((Instant::now(), false), |body| {
                    (body.moved.unwrap_or(start), body.complete_now())
                }),
                None => (start, true),
            };
            let Some((at, which)) = limits.next(moved, complete) else {
                return Poll::Pending;
            };
            if Instant::now() >= at {
                return Poll::Ready(Err(which));
            }
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
            // A timer that is early is set anew when it fires; one that is late is set now.
            if timer.deadline() > at.into() {
                timer.as_mut().reset(at.into());
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => timer.as_mut().reset(at.into()),
            }
        }
    })
    .await
}

/// The body of an answer within its limits.
pub struct Limited {
    body: Body,
    limits: Rc<Limits>,
    /// The route's time, and the cluster it is counted at.
    deadline: Option<(Instant, Arc<Cluster>)>,
    stats: Arc<HttpStats>,
    moved: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    /// Wraps a body, if there is anything to watch.
    pub fn wrap(
        body: Body,
        limits: Rc<Limits>,
        deadline: Option<(Instant, Arc<Cluster>)>,
        stats: Arc<HttpStats>,
    ) -> Body {
        let watched =
            deadline.is_some() || limits.idle.get().is_some() || limits.end.get().is_some();
        if !watched || body.is_end() || matches!(body, Body::Tunnel(_)) {
            return body;
        }
        Body::Boxed(Box::new(Self {
            body,
            limits,
            deadline,
            stats,
            moved: Instant::now(),
            timer: None,
        }))
    }
}

impl Source for Limited {
    fn is_end(&self) -> bool {
        self.body.is_end()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Poll::Ready(frame) = self.body.poll_frame(cx) {
            if self.limits.idle.get().is_some() {
                self.moved = Instant::now();
            }
            return Poll::Ready(frame);
        }
        loop {
            let limit = self.limits.next(self.moved, true);
            let route = self.deadline.as_ref().map(|(at, _)| *at);
            let at = match (limit, route) {
                (Some((limit, _)), Some(route)) => limit.min(route),
                (Some((at, _)), None) | (None, Some(at)) => at,
                (None, None) => return Poll::Pending,
            };
            if Instant::now() >= at {
                return Poll::Ready(Some(Err(match (limit, &self.deadline) {
                    (_, Some((route, cluster))) if *route == at => {
                        cluster.stats.upstream_rq_timeout.inc();
                        BodyError::Timeout
                    }
                    (Some((_, Reached::Idle)), _) => {
                        self.stats.downstream_rq_idle_timeout.inc();
                        BodyError::Idle
                    }
                    _ => {
                        self.stats.downstream_rq_max_duration_reached.inc();
                        BodyError::MaxDuration
                    }
                })));
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
            if timer.deadline() > at.into() {
                timer.as_mut().reset(at.into());
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => timer.as_mut().reset(at.into()),
            }
        }
    }
}
