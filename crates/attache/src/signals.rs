//! The signals from a supervisor, a log rotator or a person. `docs/running.md` says what each means, and [`run`](crate::run) handles them.

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// Some signals of the process, from the moment when this is made.
pub(crate) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// The signals that attache itself handles.
    pub(crate) const OWN: &[Signal] = &[Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2];
    /// The additional signals that matter if attache runs an app.
    pub(crate) const OF_AN_APP: &[Signal] = &[Signal::QUIT, Signal::WINCH];

    /// Call it within the runtime that will wait for the signals.
    pub(crate) fn new(wanted: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let heard = |one: Signal| Ok((one, signal(SignalKind::from_raw(one.as_raw()))?));
        wanted.into_iter().map(heard).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal. The future may be dropped.
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
