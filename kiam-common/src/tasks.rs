//! Tasks that run as long as the process. When one of them ends, the process must: half an agent or server would look
//! healthy and not be.

use std::{collections::HashMap, error::Error, future::Future, pin::Pin};
use tokio::task::{Id, JoinError, JoinSet};

/// Error of a task.
type BoxError = Box<dyn Error + Send + Sync>;
type BoxTask = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Named tasks, not started yet.
#[derive(Default)]
pub struct Tasks(Vec<(&'static str, BoxTask)>);

/// Named tasks that run; dropping this aborts them.
pub struct Running {
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
}

/// A task that ended, by name.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnd {
    /// It returned.
    #[error("{0}: ended, though it never should")]
    Returned(&'static str),
    /// It returned an error.
    #[error("{0}: failed")]
    Failed(&'static str, #[source] BoxError),
    /// It panicked.
    #[error("{0}: failed")]
    Panicked(&'static str, #[source] JoinError),
}

impl Tasks {
    /// Adds a task that must not return.
    pub fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.add_fallible(name, async {
            task.await;
            Ok::<_, BoxError>(())
        });
    }

    /// Adds a task that must not return, but can fail.
    pub fn add_fallible<E: Into<BoxError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.0.push((name, Box::pin(async { task.await.map_err(Into::into) })));
    }

    /// Starts all of them.
    #[must_use]
    pub fn start(self) -> Running {
        let mut tasks = JoinSet::new();
        let names = self.0.into_iter().map(|(name, task)| (tasks.spawn(task).id(), name)).collect();
        Running { tasks, names }
    }
}

impl Running {
    /// Waits for the first task that ends, and returns how.
    pub async fn first_to_end(&mut self) -> TaskEnd {
        let name = |id: Id| self.names.get(&id).copied().unwrap_or("a task");
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => TaskEnd::Returned(name(id)),
            Some(Ok((id, Err(error)))) => TaskEnd::Failed(name(id), error),
            Some(Err(error)) => TaskEnd::Panicked(name(error.id()), error),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::chain;
    use std::io;

    /// Adds a task that lasts, then the one under test; returns how the first to end did.
    async fn end_of(add: impl FnOnce(&mut Tasks)) -> String {
        let mut tasks = Tasks::default();
        tasks.add("lasting", std::future::pending());
        add(&mut tasks);
        chain(&tasks.start().first_to_end().await)
    }

    #[tokio::test]
    async fn a_task_that_returns_is_named() {
        assert_eq!(end_of(|tasks| tasks.add("short", async {})).await, "short: ended, though it never should");
    }

    #[tokio::test]
    async fn a_task_that_fails_is_named_with_its_error() {
        let failing = async { Err(io::Error::other("no socket")) };
        assert_eq!(end_of(|tasks| tasks.add_fallible("failing", failing)).await, "failing: failed: no socket");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let end = end_of(|tasks| tasks.add("broken", async { panic!("on purpose") })).await;
        assert!(end.starts_with("broken: ") && end.contains("panicked"), "{end}");
    }
}
