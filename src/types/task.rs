//! The only place that spawns tasks, so that every one of them has a name to look for.

use std::future::Future;

use tokio::task::JoinHandle;

/// Spawns `future` on the runtime of the calling thread; it never moves to another worker's thread.
///
/// `name` is for humans reading the call site. The handle may be dropped: the task goes on.
#[allow(clippy::disallowed_methods, reason = "this room spawns")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracing::trace!(task = name, "spawn");
    tokio::spawn(future)
}

/// Runs `work`, which may block on a disk, on a thread of its own.
///
/// # Errors
/// When it panicked, or the runtime is ending.
pub async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tracing::trace!(task = name, "blocking");
    tokio::task::spawn_blocking(work).await
}
