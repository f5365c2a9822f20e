//! The signals that a supervisor, a log rotator or a person sends. What each means is in `docs/running.md`, and decided
//! in [`run`](crate::run).

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// Some signals of the process, from the moment this is made.
pub(crate) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// What attache itself acts on.
    pub(crate) const OWN: &[Signal] = &[Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2];
    /// What matters beside that where it runs an app.
    pub(crate) const OF_AN_APP: &[Signal] = &[Signal::QUIT, Signal::WINCH];

    /// Must be called within the runtime that will wait for them.
    pub(crate) fn new(wanted: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let heard = |one: Signal| Ok((one, signal(SignalKind::from_raw(one.as_raw()))?));
        wanted.into_iter().map(heard).collect::<io::Result<_>>().map(Self)
    }

    /// The next one. Safe to give up.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, heard) in &mut self.0 {
                if heard.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}
