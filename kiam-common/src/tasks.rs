//! Tasks that run as long as the process. When one of them ends, the process must: half a server looks well and isn't.

use std::{future::Future, pin::Pin};
use tokio::task::JoinSet;

/// Named tasks that are not started yet.
#[derive(Default)]
pub struct Tasks(Vec<(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>)>);

/// Named tasks that run; dropped, they end.
pub struct Running(JoinSet<&'static str>);

impl Tasks {
    /// Adds one.
    pub fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, Box::pin(task)));
    }

    /// Starts all of them.
    #[must_use]
    pub fn start(self) -> Running {
        let mut running = JoinSet::new();
        for (name, task) in self.0 {
            running.spawn(async move {
                task.await;
                name
            });
        }
        Running(running)
    }
}

impl Running {
    /// Waits for the first that ends, by itself or by a panic.
    pub async fn first_to_end(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok(name)) => name.to_owned(),
            Some(Err(error)) => error.to_string(),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_ends_is_named() {
        let mut tasks = Tasks::default();
        tasks.add("lasting", std::future::pending());
        tasks.add("short", async {});
        assert_eq!(tasks.start().first_to_end().await, "short");
    }

    #[tokio::test]
    async fn a_panic_is_an_end_too() {
        let mut tasks = Tasks::default();
        tasks.add("lasting", std::future::pending());
        tasks.add("broken", async { panic!("on purpose") });
        assert!(tasks.start().first_to_end().await.contains("panicked"));
    }
}
