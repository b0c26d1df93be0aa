//! The loop of certificate requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::time::Time;
use pki::Authority;

use super::{Context, Key, key_of};
use crate::action::{Action, Executor};
use crate::certificates::{REQUESTS, Verdict, body, fail, judge, sign};
use crate::work::{WorkQueue, Worked};

/// How often requests that are there are looked at, to forget old ones.
const PERIOD: Duration = Duration::from_secs(600);

pub(super) async fn run(context: &Context, authority: Arc<Authority>) {
    let queue = WorkQueue::new();
    queue.feed(&context.certificate_requests, &context.token, |event| {
        [key_of(event.object())]
    });
    let executor = context.executor("certificate-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), authority.clone(), key)
    };
    queue.run("certificates", &context.token, work).await;
}

async fn work(
    context: Context,
    executor: Executor,
    authority: Arc<Authority>,
    (_, name): Key,
) -> Worked {
    let Some(request) = context.certificate_requests.get("", &name) else {
        return Ok(None);
    };
    let wanted = pki::csr::wanted(&body(&request)).map_err(|error| error.to_string());
    let action = match judge(&request, &wanted, Time::now_utc()) {
        Verdict::Leave => None,
        Verdict::Sign(wish) => sign(&request, &wish, &authority, SystemTime::now()),
        Verdict::Fail(reason, message) => fail(&request, reason, &message),
        Verdict::Forget => Some(Action::delete(REQUESTS, &request)),
    };
    executor.run(action.into_iter().collect()).await?;
    Ok(Some(PERIOD))
}
