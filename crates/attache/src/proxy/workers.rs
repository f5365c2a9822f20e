//! The control thread's handle for the workers.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use tokio::sync::mpsc;

use super::sockets::BoundSockets;
use crate::{
    error::Error,
    generation::Generation,
    process::ProcessState,
    worker::{self, WorkerUpdate},
};

/// The control thread's handle for the workers.
pub(crate) struct WorkerThreads(Vec<mpsc::UnboundedSender<WorkerUpdate>>);

impl WorkerThreads {
    /// The number of workers.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Starts the workers. The returned channel closes when all of them have ended.
    pub(super) fn start(process: &Arc<ProcessState>) -> Result<(Self, mpsc::Receiver<()>), Error> {
        let (done, ended) = mpsc::channel::<()>(1);
        let count = process.workers.count();
        let begin = Arc::new(Barrier::new(count));
        let mut updates = Vec::new();
        for index in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            updates.push(sender);
            let (process, begin, done) = (process.clone(), begin.clone(), done.clone());
            let run = move || {
                worker::run(&process, receiver, &begin);
                drop(done);
            };
            thread::Builder::new().name(format!("worker-{index}")).spawn(run).map_err(Error::Thread)?;
        }
        Ok((Self(updates), ended))
    }

    /// Starts the workers on the calling thread, whose clock belongs to a test.
    #[cfg(test)]
    #[expect(clippy::unnecessary_wraps, reason = "as `start`")]
    pub(super) fn start_here(process: &Arc<ProcessState>) -> Result<(Self, mpsc::Receiver<()>), Error> {
        let (done, ended) = mpsc::channel::<()>(1);
        let start = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (process, done) = (process.clone(), done.clone());
            tokio::task::spawn_local(async move {
                worker::serve(&process, receiver).await;
                drop(done);
            });
            sender
        };
        Ok((Self((0..process.workers.count()).map(start).collect()), ended))
    }

    /// Sends the generation to every worker, with the worker's own sockets. The returned channel closes when all workers use it.
    pub(crate) fn switch(
        &self,
        generation: &Arc<Generation>,
        sockets: Vec<BoundSockets>,
    ) -> mpsc::Receiver<()> {
        let (taken, all_taken) = mpsc::channel(1);
        let mut by_worker: Vec<Vec<_>> = self.0.iter().map(|_| Vec::new()).collect();
        for (place, sockets) in sockets {
            for (at, socket) in sockets.into_iter().enumerate() {
                let worker = at % self.0.len().max(1);
                if let Some(worker) = by_worker.get_mut(worker) {
                    worker.push((place.clone(), socket));
                }
            }
        }
        for (updates, sockets) in self.0.iter().zip(by_worker) {
            let update = WorkerUpdate { generation: generation.clone(), sockets, taken: taken.clone() };
            if updates.send(update).is_err() {
                tracing::error!("a worker has ended early; its share of the connections is not served");
            }
        }
        all_taken
    }
}
