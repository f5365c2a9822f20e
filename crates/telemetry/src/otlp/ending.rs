//! Decides when an export ends.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

/// Keeps an export running. The export ends when the last handle is dropped, or when `end` is called.
#[derive(Clone, Debug)]
pub struct ExportHandle {
    told: Arc<Notify>,
    _alive: mpsc::Sender<()>,
}

/// The export's side of an [`ExportHandle`].
#[derive(Debug)]
pub(super) struct ExportEnding {
    told: Arc<Notify>,
    alive: mpsc::Receiver<()>,
}

impl ExportHandle {
    pub(super) fn new() -> (Self, ExportEnding) {
        let (sender, alive) = mpsc::channel(1);
        let told = Arc::<Notify>::default();
        (Self { told: Arc::clone(&told), _alive: sender }, ExportEnding { told, alive })
    }

    /// Whether both handles belong to the same export.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.told, &other.told)
    }

    /// The process ends, or another config is used: one last export follows.
    pub fn end(&self) {
        self.told.notify_one();
    }
}

impl ExportEnding {
    /// Waits for the end.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.alive.recv() => {}
            () = self.told.notified() => {}
        }
    }
}
